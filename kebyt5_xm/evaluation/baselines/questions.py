"""Rows of a table as questions (texts of columns, and media) and their right answers, each medium read once."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.opening import open_media
from kebyt5_xm.data.sources.prompts import MediaReference, PromptTable
from kebyt5_xm.data.sources.template import MediaSegment
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.baselines.media_features import FeatureMaker

AT_ONCE = 16
"""Prepared media that are held at a time, and encoded together."""

Medium = tuple[str, bytes]
"""The modality of a medium and its identity."""


@dataclass(frozen=True)
class Question:
    """A row: the texts that its prompt takes from columns, in order, its media, and the answer to learn."""

    texts: tuple[str, ...]
    media: tuple[Medium, ...]
    target: str

    @property
    def layout(self) -> tuple[str, ...]:
        """The modalities of its media, in order."""
        return tuple(modality for modality, _ in self.media)


class TooSlow(Exception):
    """Reading and encoding media would take longer than allowed."""

    def __init__(self, num_media: int, seconds: float) -> None:
        super().__init__(
            f"the features of {num_media:,} images or recordings would take about {seconds:.0f} s"
        )


class Reader:
    """Reads rows as questions, and then the vectors of all their media.

    Args:
        makers: modality -> what makes its vectors.
        longest: seconds that the media may take; None for any time.
        progress: called with the number of media done.
    """

    def __init__(
        self,
        makers: Mapping[str, FeatureMaker],
        longest: float | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.makers = makers
        self.longest = longest
        self.progress = progress
        self._references: dict[Medium, MediaReference] = {}
        self.vectors: dict[Medium, NDArray[np.float32]] = {}
        """The vectors of the media that can be used, after `read_media`."""

    def questions(self, prompts: PromptTable, rows: Iterable[int]) -> list[Question | None]:
        """Return the questions of rows; None for a row that cannot be filled into the prompt."""
        return [self._question(prompts, row) for row in rows]

    def read_media(self) -> None:
        """Read all media of the questions so far. Raises `TooSlow`, judged by the first of them."""
        started, left = time.perf_counter(), list(self._references.items())
        for start in range(0, len(left), AT_ONCE):
            self._read(left[start : start + AT_ONCE])
            done = min(start + AT_ONCE, len(left))
            self.progress(done)
            seconds = (time.perf_counter() - started) * len(left) / done
            # The very first are slower than the others: libraries are loaded.
            if self.longest is not None and start and seconds > self.longest:
                raise TooSlow(len(left), seconds)
        self._references.clear()

    def is_usable(self, question: Question) -> bool:
        """Return whether all media of a question could be read."""
        return all(medium in self.vectors for medium in question.media)

    def _question(self, prompts: PromptTable, row: int) -> Question | None:
        texts: list[str] = []

        def note(_: str, text: str) -> str:
            texts.append(text)
            return text

        try:
            segments = prompts.segments(row, note)
            target = prompts.target_text(row)
        except BadSample:
            return None
        media = []
        for segment in segments:
            if isinstance(segment, MediaSegment):
                reference = MediaReference(prompts, segment.reference)
                medium = segment.modality, reference.identity
                if medium not in self.vectors:
                    self._references.setdefault(medium, reference)
                media.append(medium)
        return Question(tuple(texts), tuple(media), target)

    def _read(self, some: Sequence[tuple[Medium, MediaReference]]) -> None:
        prepared: dict[str, list[tuple[Medium, object]]] = {}
        for medium, reference in some:
            modality = medium[0]
            kind = reference.prompts.interfaces[modality].media
            try:
                item = open_media(reference.readable(), kind, reference.limits)
                ready = self.makers[modality].prepare(item)
            except (BadSample, UserError):  # training skips it, too
                continue
            prepared.setdefault(modality, []).append((medium, ready))
        for modality, pairs in prepared.items():
            vectors = self.makers[modality].vectors([ready for _, ready in pairs])  # pyright: ignore[reportArgumentType]
            self.vectors.update(zip((medium for medium, _ in pairs), vectors, strict=True))
