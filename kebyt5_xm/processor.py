"""From text, images and recordings, as a person has them, to the inputs of a model.

processor(["이 그림은? ", Path("a.png"), "\\n답: "])          one example
processor([[image, " ko:"], [(waveform, 16000), " ko:"]])  a batch
"""

import json
import mimetypes
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from kebyt5_xm.data.bad_sample import BadSample
from kebyt5_xm.data.batch import collate
from kebyt5_xm.data.media import Limits, as_mono, as_rgb, open_media
from kebyt5_xm.data.source import Example, MediaItem
from kebyt5_xm.encoder import Media
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.modality import MediaInterface
from kebyt5_xm.splice import MediaGroup
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

if TYPE_CHECKING:
    from kebyt5_xm.model import CrossModalT5

CONFIG = "processor_config.json"

ARRAY_SUFFIXES = (".npy", ".safetensors")
"""Those that `kebyt5_xm.data.array` reads."""


@dataclass(frozen=True)
class Medium:
    """One input of a named modality, where its kind alone would not say which: also written (modality, item).

    `item` is a path (here a plain string will do), a PIL image, (waveform, sample rate) or an array.
    """

    modality: str
    item: Any


Segment = Any
"""Text as `str`; a file as `Path`; a PIL image; (waveform, sample rate in Hz); an array; or a `Medium`."""

Segments = str | list[Segment]
"""One example: its segments in order, or a text alone."""


class Inputs(dict[str, Any]):
    """What `model(...)` and `model.generate(...)` take, as `**inputs`."""

    def to(self, device: torch.device | str) -> "Inputs":
        """Return the inputs on `device`."""
        media: list[MediaGroup] = self["media"]
        moved = {key: self[key].to(device) for key in ("input_ids", "attention_mask")}
        return Inputs(moved, media=[group.to(device) for group in media])


class CrossModalProcessor:
    """Turns segments into ids, prepared media and the places of their slots, exactly as training does.

    Args:
        interfaces: what is known of each modality.
        limits: largest media that are opened.
    """

    def __init__(self, interfaces: dict[str, MediaInterface], limits: Limits | None = None) -> None:
        self.interfaces = interfaces
        self.limits = limits or Limits()

    @classmethod
    def of(cls, model: "CrossModalT5", limits: Limits | None = None) -> "CrossModalProcessor":
        """Return the processor of a model that is at hand."""
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

        With the model at hand, `of` costs nothing. Raises `UserError` as `CrossModalT5.from_pretrained` does.
        """
        from kebyt5_xm.pretrained import open_pretrained
        from kebyt5_xm.saving import build_modalities, read_config

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
            processor._compare(json.loads(path.read_text(encoding="utf-8")).get("preprocessing", {}))
        return processor

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write processor_config.json beside the model's config.json, which holds the rest.

        It has a hash of each modality's preprocessing, by which `from_pretrained` knows whether it still is what
        the model was trained with: a library may change its own.
        """
        content = {
            "processor_class": type(self).__name__,
            "preprocessing": {name: i.preprocessor.fingerprint() for name, i in self.interfaces.items()},
        }
        Path(folder, CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    def _compare(self, preprocessing: dict[str, str]) -> None:
        for name, theirs in preprocessing.items():
            if name in self.interfaces and self.interfaces[name].preprocessor.fingerprint() != theirs:
                warnings.warn(
                    f"the preprocessing of modality '{name}' is not what it was when the model was saved (other "
                    "versions of its libraries?); its answers may be worse",
                    stacklevel=3,
                )

    @staticmethod
    def is_batch(segments: "Segments | Sequence[Segments]") -> bool:
        """Say whether `segments` is a batch: a list of lists."""
        return isinstance(segments, list) and bool(segments) and all(isinstance(s, list) for s in segments)

    def __call__(self, segments: "Segments | Sequence[Segments]") -> Inputs:
        """Return `input_ids` [B, S] (PAD at slots), `attention_mask` [B, S] and `media`.

        Takes one list of segments, or a batch: a list of such lists. A plain string is text, never a path. A
        medium goes to the one modality of its kind; where there are several, `Medium` or (name, item) says
        which. Raises `UserError`: for a medium that no modality takes, a file that cannot be used (`MediaError`),
        a recording too short for one feature.
        """
        rows: list[Any] = [*segments] if self.is_batch(segments) else [segments]
        examples = [self.example([row] if isinstance(row, str) else row) for row in rows]
        part = np.zeros(len(examples), dtype=np.int64)
        batch = collate(examples, part, interfaces=self.interfaces, num_targets=1, step=0, next_step=1)
        batch = batch.to("cpu")  # widens the ids
        position = torch.arange(batch.input_ids.shape[1])
        mask = (position < batch.lengths[:, None]).long()
        return Inputs(input_ids=batch.input_ids, attention_mask=mask, media=batch.media)

    def example(self, segments: list[Segment]) -> Example:
        """Return the example of one list of segments, without a target."""
        if not isinstance(segments, list) or not segments:
            raise UserError(
                f"found {_shown(segments)}, expected a list of segments: text, images, recordings"
            )
        ids, media, position = [], [], 0
        for segment in segments:
            if isinstance(segment, str):
                ids.append(encode(segment))
            else:
                medium = self._medium(segment)
                prepared, count = self._prepare(medium)
                media.append(MediaItem(medium.modality, prepared, position, count))
                ids.append(np.full(count, PAD_ID, dtype=np.int16))
            position += len(ids[-1])
        end = np.asarray([EOS_ID], dtype=np.int16)
        return Example(np.concatenate([*ids, end]), end, tuple(media))

    def _medium(self, segment: Segment) -> Medium:
        """Return the segment with its modality, found by its kind unless it is named."""
        if isinstance(segment, tuple) and len(segment) == 2 and isinstance(segment[0], str):
            segment = Medium(*segment)
        if isinstance(segment, Medium):
            if segment.modality not in self.interfaces:
                raise UserError(
                    f"no modality '{segment.modality}'{did_you_mean(segment.modality, self.interfaces)}; the model "
                    f"has {self._known()}"
                )
            return segment
        media = _media_of(segment)
        if media is None and isinstance(segment, os.PathLike) and len(self.interfaces) == 1:
            return Medium(next(iter(self.interfaces)), segment)
        if media is None:
            raise UserError(
                f"found {_shown(segment)} among the segments, of which the kind is not known; expected text, a Path "
                "of an image or recording, a PIL image, (waveform, sample rate), an array, or (modality, item)"
            )
        fitting = [name for name, interface in self.interfaces.items() if interface.media == media]
        if not fitting:
            raise UserError(
                f"found {_shown(segment)}, but no modality takes {media}; the model has {self._known()}: leave it "
                "out, or use a model that was trained with such a modality"
            )
        if len(fitting) > 1:
            raise UserError(
                f"found {_shown(segment)}, which the modalities {' and '.join(fitting)} both take; say which: "
                f"('{fitting[0]}', item)"
            )
        return Medium(fitting[0], segment)

    def _prepare(self, medium: Medium) -> tuple[torch.Tensor, int]:
        name, item = medium.modality, medium.item
        interface = self.interfaces[name]
        if isinstance(item, str | os.PathLike | bytes):
            item = open_media(item, interface.media, self.limits)
        elif _media_of(item) != interface.media:
            raise UserError(
                f"modality '{name}' takes {interface.media}, found {_shown(item)}; give a path of one, or another "
                f"modality ({self._known()})"
            )
        else:
            item = _normal(item, interface.media)
        try:
            return interface.prepare(item)
        except BadSample:
            raise
        except UserError as error:  # too short for one feature, say
            raise UserError(f"modality '{name}' cannot take {_shown(medium.item)}: {error}") from error

    def _known(self) -> str:
        return ", ".join(f"'{name}' ({i.media})" for name, i in self.interfaces.items()) or "none, only text"


def _media_of(item: Any) -> Media | None:
    """Return the kind of a segment that is no text, by its type or a file's name; None where neither tells."""
    if isinstance(item, os.PathLike):
        name = os.fspath(item)
        kind = (mimetypes.guess_type(name)[0] or "").partition("/")[0]
        if Path(name).suffix.lower() in ARRAY_SUFFIXES:
            return "array"
        return next((media for media in get_args(Media) if media == kind), None)
    if isinstance(item, tuple) and len(item) == 2 and np.ndim(item[1]) == 0:
        return "audio"
    if hasattr(item, "getexif") and hasattr(item, "size"):
        return "image"
    return "array" if isinstance(item, np.ndarray | torch.Tensor) else None


def _normal(item: Any, media: Media) -> Any:
    """Return what is in memory as `open_media` would have given it."""
    if media == "image":
        return as_rgb(item)
    if media == "audio":
        return as_mono(*item)
    return np.asarray(item, dtype=np.float32)


def _shown(item: Any) -> str:
    if isinstance(item, os.PathLike | str):
        return f"'{os.fspath(item)}'"[:200]
    return f"a {type(item).__name__}"
