"""Turns text, images and recordings into the inputs of a model.

processor(["이 그림은? ", Path("a.png"), "\\n답: "])          one example
processor([[image, " ko:"], [(waveform, 16000), " ko:"]])  a batch
"""

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kebyt5_xm.data.batch import collate_inputs
from kebyt5_xm.data.inputs import Example, MediaGroup, MediaItem
from kebyt5_xm.data.media.bad_sample import BadSample, MediaError
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.names import guess_media
from kebyt5_xm.data.media.opening import Limits, open_media
from kebyt5_xm.encoder import length_mask
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.kinds import convert_item, describe, is_image_array, media_kind
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.pretrained import open_pretrained
from kebyt5_xm.model.saving import read_config
from kebyt5_xm.model.specs import build_modalities
from kebyt5_xm.trust import without_working_folder
from kebyt5_xm.vocabulary import PAD_ID, encode

CONFIG = "processor_config.json"

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
"""Text as `str`; a file as `Path`; a PIL image; uint8 pixels; (waveform, sample rate in Hz); an array; a `Medium`."""

Segments = str | list[Segment]
"""One example: its segments in order, or one text."""


class Processed(dict[str, Any]):
    """Keyword arguments of `model(...)` and `model.generate(...)`."""

    def to(self, device: torch.device | str) -> "Processed":
        """Return the inputs on `device`."""
        media: list[MediaGroup] = self["media"]
        moved = {key: self[key].to(device) for key in ("input_ids", "attention_mask")}
        return Processed(moved, media=[group.to(device) for group in media])


class CrossModalProcessor:
    """Turns segments into ids, prepared media and the positions of their slots, exactly as training does.

    Args:
        interfaces: the data side of each modality, by name.
        limits: limits on the size of media that are opened.
    """

    def __init__(self, interfaces: dict[str, MediaInterface], limits: Limits | None = None) -> None:
        self.interfaces = interfaces
        self.limits = limits or Limits()

    @classmethod
    def of(cls, model: CrossModalNetwork, limits: Limits | None = None) -> "CrossModalProcessor":
        """Return the processor of a loaded model."""
        modules = {name: model.modality(name) for name in model.modalities}
        return cls(
            {
                name: MediaInterface(module.encoder.media, module.encoder.preprocessor(), module.adapter)
                for name, module in modules.items()
            },
            limits,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        trusted_modules: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> "CrossModalProcessor":
        """Return the processor of a saved model without reading its weights.

        For a loaded model use `of`, which costs nothing. Raises `UserError` as `CrossModalT5.from_pretrained` does.
        """
        content = read_config(os.fspath(folder))
        parts = build_modalities(content["modalities"], content["backbone"]["d_model"], trusted_modules)
        processor = cls(
            {
                name: MediaInterface(encoder.media, encoder.preprocessor(), adapter)
                for name, (encoder, adapter) in parts.items()
            },
            limits,
        )
        if path := open_pretrained(os.fspath(folder)).file(CONFIG):
            processor._warn_of_changes(json.loads(path.read_text(encoding="utf-8")).get("preprocessing", {}))
        return processor

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write processor_config.json into the folder of the model's config.json, which holds the rest.

        It holds a hash of each modality's preprocessing. With it `from_pretrained` notices if the preprocessing has
        changed since training, as a new version of a library may change it.
        """
        content = {
            "processor_class": type(self).__name__,
            "preprocessing": {name: i.preprocessor.fingerprint() for name, i in self.interfaces.items()},
        }
        Path(folder, CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _warn_of_changes(self, preprocessing: dict[str, str]) -> None:
        for name, fingerprint in preprocessing.items():
            if name in self.interfaces and self.interfaces[name].preprocessor.fingerprint() != fingerprint:
                warnings.warn(
                    f"the preprocessing of modality '{name}' has changed since the model was saved (other versions "
                    "of its libraries?); answers may be worse",
                    stacklevel=3,
                )

    @staticmethod
    def is_batch(segments: "Segments | Sequence[Segments]") -> bool:
        """Return whether `segments` is a batch: a list of lists."""
        return isinstance(segments, list) and bool(segments) and all(isinstance(s, list) for s in segments)

    def __call__(self, segments: "Segments | Sequence[Segments]") -> Processed:
        """Return `input_ids` [B, S] (PAD at slots), `attention_mask` [B, S] and `media`.

        Takes one list of segments, or a batch: a list of such lists. A plain string is text; a string that is the
        name of a file is refused, since it was probably meant as a path. A medium goes to the only modality of its
        kind; if there are several, `Medium` or (name, item) chooses. Raises `UserError` for a medium that no modality
        takes, a file that cannot be used (`MediaError`) and a recording too short for one feature; it names the
        example and the segment, counted from 1.
        """
        is_batch = self.is_batch(segments)
        rows: list[Any] = [*segments] if is_batch else [segments]
        examples = []
        with without_working_folder():  # decoders are imported here, and the model may be third-party
            for number, row in enumerate(rows, 1):
                with _naming(f"example {number}" if is_batch else ""):
                    examples.append(self.example([row] if isinstance(row, str) else row))
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
        ids, media, position = [], [], 0
        for number, segment in enumerate(segments, 1):
            with _naming(f"segment {number}" if len(segments) > 1 else ""):
                if isinstance(segment, str):
                    if refuse_file_names:
                        self._refuse_file_name(segment)
                    ids.append(encode(segment))
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
                    f"has {self._describe_modalities()}"
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
                f"{self._describe_modalities()}: leave it out, or use a model that was trained with such a modality"
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
        if isinstance(item, str | os.PathLike | bytes):
            item = open_media(item, interface.media, self.limits)
        elif media_kind(item) != interface.media and not (
            interface.media == "image" and isinstance(item, np.ndarray | torch.Tensor)
        ):
            raise UserError(
                f"modality '{name}' takes {interface.media}, found {describe(item)}; give one, its path, or another "
                f"modality ({self._describe_modalities()})"
            )
        else:
            item = convert_item(item, interface.media)
        try:
            return interface.prepare(item)
        except BadSample:
            raise
        except UserError as error:  # for example, too short for one feature
            raise UserError(f"modality '{name}' cannot take {describe(medium.item)}: {error}") from error

    def _describe_modalities(self) -> str:
        return ", ".join(f"'{name}' ({i.media})" for name, i in self.interfaces.items()) or "none, only text"


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
