"""Text infilling: a text with removed spans as a model's input, and the spans that the model writes into it.

Each removed span is one sentinel in the input, and the model answers with each sentinel and its span, as in
pretraining by span denoising (`kebyt5_xm.data.text.denoising`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.writing import FinishReason
from kebyt5_xm.model.hypothesis import Hypothesis, Word, find_words
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID, MAX_SENTINELS, Sentinels, encode, sentinel_ids


def sentinels_of(denoising: Mapping[str, Any]) -> Sentinels:
    """Return the convention in the settings of a model's span denoising; ByT5's own if they do not say it."""
    found = denoising.get("sentinels")
    return cast(Sentinels, found) if found in MAX_SENTINELS else "descending"


@dataclass(frozen=True)
class Gaps:
    """A text with removed spans; `CrossModalT5.fill` writes them.

    Args:
        pieces: the text around the spans, one piece more than there are spans. Pieces may be empty.

    Raises `UserError` for one text instead of pieces, and for fewer than two pieces.
    """

    pieces: Sequence[str]

    def __post_init__(self) -> None:
        found = [] if isinstance(self.pieces, str) else list(self.pieces)
        if len(found) < 2 or not all(isinstance(piece, str) for piece in found):
            raise UserError(
                f"found {str(self.pieces)[:80]!r}, expected the texts before, between and after the gaps: "
                "Gaps(['before ', ' after'])"
            )
        object.__setattr__(self, "pieces", tuple(found))

    def __len__(self) -> int:
        return len(self.pieces) - 1

    def ids(self, sentinels: Sentinels) -> NDArray[np.int16]:
        """Return the ids of the pieces with a sentinel in each gap, without an end of sequence.

        Raises `UserError` for more gaps than there are sentinels.
        """
        first, *others = (encode(piece) for piece in self.pieces)
        parts = [first]
        for sentinel, piece in zip(sentinel_ids(sentinels, len(self)), others, strict=True):
            parts += [np.asarray([sentinel], dtype=np.int16), piece]
        return np.concatenate(parts)

    @staticmethod
    def among(segments: Any) -> "Gaps | None":
        """Return the gaps of one example, None if it has none. Raises `UserError` for several of them."""
        found = [
            part
            for part in (segments if isinstance(segments, list) else [segments])
            if isinstance(part, Gaps)
        ]
        if len(found) > 1:
            raise UserError(
                f"found {len(found)} texts with gaps in one example, expected one; a Gaps may have several gaps"
            )
        return found[0] if found else None


@dataclass(frozen=True)
class Filled:
    """A text whose gaps are filled.

    Args:
        text: the whole text.
        spans: what was written into each gap, with its place in the text and its probability; empty where the
            model wrote nothing.
        words: the words of these spans, between white space, likewise.
        finish_reason, log_probability, confidence: of the model's answer, as in `Hypothesis`.
    """

    text: str
    spans: tuple[Word, ...] = field(repr=False)
    words: tuple[Word, ...] = field(repr=False)
    finish_reason: FinishReason
    log_probability: float
    confidence: float

    @classmethod
    def of(cls, gaps: Gaps, answer: Hypothesis, sentinels: Sentinels) -> "Filled":
        """Return the text with the spans of an answer to it."""
        text, spans, words = gaps.pieces[0], [], []
        written = _written_spans(answer, sentinels, len(gaps))
        for (raw, confidence), piece in zip(written, gaps.pieces[1:], strict=True):
            span = raw.decode("utf-8", "replace")
            words += find_words(raw, confidence, len(text))
            spans.append(Word(span, len(text), len(text) + len(span), math.prod(confidence, start=1.0)))
            text += span + piece
        about = answer.finish_reason, answer.log_probability, answer.confidence
        return cls(text, tuple(spans), tuple(words), *about)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        parts = {"spans": self.spans, "words": self.words}
        return vars(self) | {name: [vars(word) for word in words] for name, words in parts.items()}


def _written_spans(
    answer: Hypothesis, sentinels: Sentinels, count: int
) -> list[tuple[bytes, tuple[float, ...]]]:
    """Return the bytes of each span and their probabilities.

    A span is what follows its sentinel up to another one. What stands before the first sentinel is left out, unless
    there is no such sentinel: then it is the first span. What follows a sentinel of no gap is left out too.
    """
    numbers = {int(id_): n for n, id_ in enumerate(sentinel_ids(sentinels, MAX_SENTINELS[sentinels]))}
    probabilities = iter(answer.byte_confidence)
    spans: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    number, has_ended = 0, False
    for id_ in answer.ids:
        is_byte = BYTE_OFFSET <= id_ < BYTE_OFFSET + 256
        probability = next(probabilities, 1.0) if is_byte else 1.0
        if id_ in numbers:
            number = numbers[id_]
            if number == 0:
                spans[0].clear()
        if id_ == EOS_ID or number >= count:
            has_ended = True
            break
        if is_byte and id_ not in numbers:
            spans[number].append((id_ - BYTE_OFFSET, probability))
    found = [(bytes(byte for byte, _ in span), tuple(p for _, p in span)) for span in spans]
    if not has_ended:
        found[number] = _without_cut_character(*found[number])
    return found


def _without_cut_character(raw: bytes, confidence: tuple[float, ...]) -> tuple[bytes, tuple[float, ...]]:
    """Return the last span of an answer that was cut, perhaps inside a character, without what is not whole."""
    while raw.decode("utf-8", "replace").endswith("\ufffd"):
        raw = raw[:-1]
    return raw, confidence[: len(raw)]
