"""Turns text, images and recordings into the inputs of a model.

processor(["이 그림은? ", Path("a.png"), "\\n답: "])          one example
processor([[image, " ko:"], [(waveform, 16000), " ko:"]])  a batch
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kebyt5_xm.data.batch import collate_inputs
from kebyt5_xm.data.inputs import Example, MediaGroup, MediaItem
from kebyt5_xm.data.media.bad_sample import BadSample, MediaError
from kebyt5_xm.data.media.names import guess_media
from kebyt5_xm.data.media.opening import Excerpt, open_media
from kebyt5_xm.encoder import length_mask
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.hub_arguments import refuse_unknown
from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.model.kinds import convert_item, describe, is_image_array, media_kind
from kebyt5_xm.model.pipeline_calls import call_segments
from kebyt5_xm.model.saved_processor import SavedProcessor
from kebyt5_xm.trust import without_working_folder
from kebyt5_xm.vocabulary import PAD_ID, encode

CALL_REMEDIES = {
    "text": "put the text among the segments",
    "images": "put the images among the segments",
    "audio": "put the recordings among the segments",
}
"""Arguments that are refused beside segments -> what to do instead."""

MAX_PATH_BYTES = 4096
"""Bytes of a path on Linux (PATH_MAX)."""


@dataclass(frozen=True)
class Medium:
    """One input of a named modality, needed if several modalities take its kind; a tuple (modality, item) does too.

    `item` is a path (also as a `str`), a file's bytes, a PIL image, (waveform, sample rate) or an array.
    """

    modality: str
    item: Any


Segment = Any
"""Text as `str`; a file as `Path`; a PIL image; uint8 pixels; (waveform, sample rate in Hz); an array; a `Medium`;
`Gaps`."""

Segments = str | Gaps | list[Segment]
"""One example: its segments in order, or one text."""


class Processed(dict[str, Any]):
    """Keyword arguments of `model(...)` and `model.generate(...)`."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Processed":
        """Return the inputs, and whatever was added to them, on `device`.

        transformers' pipelines pass the model's `dtype`; encoders convert to it themselves.
        """
        if device is None:
            return self
        media: list[MediaGroup] = self["media"]
        moved = {
            key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in self.items()
        }
        return Processed(moved | {"media": [group.to(device) for group in media]})


class CrossModalProcessor(SavedProcessor):
    """Turns segments into ids, prepared media and the positions of their slots, exactly as training does."""

    @staticmethod
    def is_batch(segments: "Segments | Sequence[Segments]") -> bool:
        """Return whether `segments` is a batch: a list of lists."""
        return isinstance(segments, list) and bool(segments) and all(isinstance(s, list) for s in segments)

    @classmethod
    def rows(cls, segments: "Segments | Sequence[Segments]") -> list[Any]:
        """Return the examples of a batch, or the only one."""
        return [*segments] if cls.is_batch(segments) else [segments]  # pyright: ignore[reportGeneralTypeIssues]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, segments: "Segments | Sequence[Segments] | None" = None, **call: Any
    ) -> Processed:
        """Return `input_ids` [B, S] (PAD at slots), `attention_mask` [B, S] and `media`.

        Takes one list of segments, or a batch: a list of such lists. A plain string is text; a string that is the
        name of a file is refused, since it was probably meant as a path. A medium goes to the only modality of its
        kind; if there are several, `Medium` or (name, item) chooses. Without segments, `call` has `text`,
        `images` and `audio`, as processors of transformers take them (see `kebyt5_xm.model.pipeline_calls`). Raises
        `UserError` for a medium that no modality takes, a file that cannot be used (`MediaError`) and a recording
        too short for one feature; it names the example and the segment, counted from 1.
        """
        if segments is None:
            segments = call_segments(self.modality_of, **call)
        elif call:
            refuse_unknown("a processor", call, CALL_REMEDIES)
        is_batch, rows = self.is_batch(segments), self.rows(segments)
        examples = []
        with without_working_folder():  # decoders are imported here, and the model may be third-party
            for number, row in enumerate(rows, 1):
                with _naming(f"example {number}" if is_batch else ""):
                    examples.append(self.example([row] if isinstance(row, str | Gaps) else row))
        return self.collate(examples)

    def collate(self, examples: Sequence[Example]) -> Processed:
        """Return the inputs of examples that `example` made, as one batch."""
        inputs = collate_inputs(examples, self.interfaces).to("cpu")  # widens the ids
        mask = length_mask(inputs.lengths, inputs.input_ids.shape[1]).long()
        return Processed(input_ids=inputs.input_ids, attention_mask=mask, media=inputs.media)

    def example(self, segments: list[Segment], refuse_file_names: bool = True) -> Example:
        """Return the example of one list of segments, without a target.

        Without `refuse_file_names` every text is text, and no file is looked up: a server's texts are never paths.
        """
        if not isinstance(segments, list) or not segments:
            found = "an empty list" if isinstance(segments, list) else describe(segments)
            raise UserError(
                f"found {found}, expected a text or a list of segments: [image, 'text', (waveform, sample rate)]"
            )
        Gaps.among(segments)
        ids, media, position = [], [], 0
        for number, segment in enumerate(segments, 1):
            with _naming(f"segment {number}" if len(segments) > 1 else ""):
                if isinstance(segment, str):
                    if refuse_file_names:
                        self._refuse_file_name(segment)
                    ids.append(encode(segment))
                elif isinstance(segment, Gaps):
                    ids.append(segment.ids(self.sentinels))
                else:
                    medium = self._medium(segment)
                    prepared, count = self._prepare(medium)
                    media.append(MediaItem(medium.modality, prepared, position, count))
                    ids.append(np.full(count, PAD_ID, dtype=np.int16))
            position += len(ids[-1])
        return Example.without_target(ids, media)

    def _refuse_file_name(self, text: str) -> None:
        """Raise `UserError` for a text that was probably meant as a path."""
        kind = guess_media(text)
        if kind is None or "\n" in text or len(os.fsencode(text.encode(errors="ignore"))) > MAX_PATH_BYTES:
            return
        if os.path.isfile(text) or (self.interfaces and not any(c.isspace() for c in text)):
            raise UserError(
                f"found the text '{text}', the name of a file, expected Path('{text}') for the file's content; for "
                "the name itself, put it into one text with the words around it"
            )

    def _medium(self, segment: Segment) -> Medium:
        """Return the segment with its modality: the named one, or the only one of its kind."""
        if isinstance(segment, tuple) and len(segment) == 2 and isinstance(segment[0], str):
            segment = Medium(*segment)
        if isinstance(segment, Medium):
            if segment.modality not in self.interfaces:
                raise UserError(
                    f"no modality '{segment.modality}'{did_you_mean(segment.modality, self.interfaces)}; the model "
                    f"has {self.describe_modalities()}"
                )
            return segment
        media = media_kind(segment, self.limits)
        if media is None and isinstance(segment, os.PathLike) and len(self.interfaces) == 1:
            return Medium(next(iter(self.interfaces)), segment)
        kinds = [interface.media for interface in self.interfaces.values()]
        if media == "array" and media not in kinds and "image" in kinds and is_image_array(segment):
            media = "image"
        if media is None:
            raise UserError(
                f"found {describe(segment)} among the segments, whose kind is unknown; expected text, a Path "
                "of an image or recording, a PIL image, (waveform, sample rate) in this order, an array, or "
                "(modality, item); a batch is a list of lists"
            )
        fitting = [name for name, interface in self.interfaces.items() if interface.media == media]
        if not fitting:
            raise UserError(
                f"found {describe(segment)}, but no modality takes {media}; the model has "
                f"{self.describe_modalities()}: leave it out, or use a model that was trained with such a modality"
            )
        if len(fitting) > 1:
            raise UserError(
                f"found {describe(segment)}, which the modalities {' and '.join(fitting)} both take; choose one: "
                f"('{fitting[0]}', item)"
            )
        return Medium(fitting[0], segment)

    def _prepare(self, medium: Medium) -> tuple[torch.Tensor, int]:
        name, item = medium.modality, medium.item
        interface = self.interfaces[name]
        if isinstance(item, str | os.PathLike | bytes | Excerpt):
            item = open_media(item, interface.media, self.limits)
        elif media_kind(item) != interface.media and not (
            interface.media == "image" and isinstance(item, np.ndarray | torch.Tensor)
        ):
            raise UserError(
                f"modality '{name}' takes {interface.media}, found {describe(item)}; give one, its path, or another "
                f"modality ({self.describe_modalities()})"
            )
        else:
            item = convert_item(item, interface.media)
        try:
            return interface.prepare(item)
        except BadSample:
            raise
        except UserError as error:  # for example, too short for one feature
            raise UserError(f"modality '{name}' cannot take {describe(medium.item)}: {error}") from error


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Add the place of a segment to the errors of the block; nothing if `place` is empty."""
    try:
        yield
    except MediaError as error:
        if not place:
            raise
        raise MediaError(f"{error.path}, {place}", error.cause) from error
    except UserError as error:
        if not place:
            raise
        raise UserError(f"{place}: {error}") from error
