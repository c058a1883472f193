"""What a source's `augment` does to the examples that it trains on, and the checks before training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from kebyt5_xm.data.augmentation.images import as_unchanged_size
from kebyt5_xm.data.augmentation.recordings import Recording, Speed, change_speed, num_samples_at
from kebyt5_xm.data.augmentation.transformation import Transformation, apply, describe
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.perturbations import make_generator
from kebyt5_xm.data.randomness import hash64, map_to_range
from kebyt5_xm.encoder import AudioHeader, Header, Preprocessor, Size
from kebyt5_xm.errors import UserError, did_you_mean

Step = Transformation | nn.Module
"""A transformation of ours, or a module of torchvision.transforms.v2, which takes and gives a Pillow image."""

_SPEED = 0x5BEED
"""A counter that only the draw of the speed uses."""
_COLUMNS = 1 << 32
"""The places of columns, behind those of media."""
_STEPS = 1 << 16
"""The places of the transformations of one medium or column."""


@dataclass
class Augmentation:
    """The transformations of a source, by modality or column.

    Attributes:
        steps: modality or column of the prompt -> its transformations, in order.
        modalities: the modalities of the prompt.
        columns: the columns that the prompt uses as text.
    """

    steps: Mapping[str, Sequence[Step]]
    modalities: tuple[str, ...]
    columns: tuple[str, ...]
    speed: tuple[str, Speed] | None = field(init=False, default=None)
    """The modality whose speed changes, and how."""

    def __post_init__(self) -> None:
        for name, steps in self.steps.items():
            if (name in self.modalities) == (name in self.columns):
                self._refuse_name(name)
            for number, step in enumerate(steps):
                place = f"augment.{name}[{number}]"
                if name in self.columns:
                    _check_text_step(place, step, is_last=number == len(steps) - 1)
                elif isinstance(step, Speed):
                    if self.speed is not None:
                        raise UserError(f"{place} is a second Speed, expected one of a source; take one out")
                    self.speed = name, step

    def _refuse_name(self, name: str) -> None:
        known = (*self.modalities, *self.columns)
        if name in known:
            raise UserError(
                f"found augment.{name}, which is a modality and a column of the prompt; rename one of them"
            )
        raise UserError(
            f"found augment.{name}, expected a modality of the prompt or a column that it uses as text: "
            f"{', '.join(known) or 'it has none'}{did_you_mean(name, known)}"
        )

    # -- before training ---------------------------------------------------------------------------

    def check(self, interfaces: Mapping[str, MediaInterface]) -> None:
        """Raise `UserError` for a transformation that does not fit its modality, or that fails when it is tried."""
        for name in self.modalities:
            steps = self.steps.get(name, ())
            if not steps:
                continue
            interface = interfaces[name]
            if interface.cache is not None:
                raise UserError(
                    f"found augment.{name} and a feature cache of '{name}', whose features are of plain media; take "
                    f"`cache` out of model.modalities.{name}, or {name} out of `augment`"
                )
            for number, step in enumerate(steps):
                _check_step(f"augment.{name}[{number}]", name, step, interface)
            try:
                self._try(name, interface)
            except UserError as error:
                raise UserError(f"augment.{name}: {error}") from error

    def _try(self, name: str, interface: MediaInterface) -> None:
        """Change a picture or a recording of noise a few times, since some transformations act only sometimes."""
        draw = np.random.default_rng(0)
        is_prepared = any(isinstance(s, Transformation) and s.kind == "prepared" for s in self.steps[name])
        for index in range(TRIES):
            item: Any = None
            if interface.media == "image":
                from PIL import Image

                item = Image.fromarray(draw.integers(0, 256, TRIED_PIXELS, dtype=np.uint8))
            elif interface.media == "audio":
                item = draw.normal(0, 0.1, TRIED_RATE).astype(np.float32), TRIED_RATE
            if item is None:
                return
            changed = self.changes(0, index).medium(0, name, item)
            if index == 0 and is_prepared:
                self.changes(0, index).prepared(0, name, interface.preprocessor.prepare(changed))

    # -- lengths -----------------------------------------------------------------------------------

    @property
    def speeds(self) -> tuple[float, ...]:
        """The speeds that a recording may have, each equally likely."""
        return (1.0,) if self.speed is None else self.speed[1].factors

    def draw_speeds(self, seed: int, index: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return, for each number of an example in the run, the place of its speed in `speeds`."""
        return map_to_range(hash64(seed, index, _SPEED), len(self.speeds))

    def interfaces_at(
        self, speed: float, interfaces: Mapping[str, MediaInterface]
    ) -> Mapping[str, MediaInterface]:
        """Return the interfaces, of which that with a `Speed` counts the slots of a recording played at `speed`."""
        if self.speed is None or speed == 1:
            return interfaces
        name = self.speed[0]
        plain = interfaces[name]
        played = PlayedAt(plain.preprocessor, speed)
        return {**interfaces, name: MediaInterface(plain.media, played, plain.adapter)}

    @property
    def changes_text(self) -> bool:
        """Whether the bytes of a prompt may differ from those of its row."""
        return any(self.steps.get(column) for column in self.columns)

    @property
    def changes_media(self) -> bool:
        """Whether media are opened and changed before, or after, they are prepared."""
        return any(self.steps.get(name) for name in self.modalities)

    # -- examples ----------------------------------------------------------------------------------

    def changes(self, seed: int, index: int) -> "Changes":
        """Return what is drawn for example number `index` of a run."""
        speed = self.speeds[int(self.draw_speeds(seed, np.asarray([index], dtype=np.uint64))[0])]
        return Changes(self, seed, index, speed)

    def settings(self) -> dict[str, list[str]]:
        """Return every setting as plain values."""
        return {name: [describe(step) for step in steps] for name, steps in self.steps.items()}


TRIES = 8
TRIED_PIXELS = (160, 224, 3)
TRIED_RATE = 16_000
"""What transformations are tried on: so many pictures of this shape, or recordings of a second at this rate."""


@dataclass(frozen=True)
class Changes:
    """What is drawn for one example: a pure function of the seed and of the example's number in the run."""

    augmentation: Augmentation
    seed: int
    index: int
    speed: float

    def text(self, column: str, text: str) -> str | bytes:
        """Return the text of a prompt's column, changed."""
        place = _COLUMNS + self.augmentation.columns.index(column)
        changed: Any = text
        for number, step in enumerate(self.augmentation.steps.get(column, ())):
            changed = apply(step, changed, self._generator(place, number))
        return changed

    def medium(self, slot: int, modality: str, item: Any) -> Any:
        """Return the decoded medium in slot `slot` of its example, changed; raise `UserError` for a new size."""
        changed = item
        for number, step in enumerate(self.augmentation.steps.get(modality, ())):
            if isinstance(step, Speed):
                changed = change_speed(changed, self.speed)
            elif not (isinstance(step, Transformation) and step.kind == "prepared"):
                changed = apply(step, changed, self._generator(slot, number))
        if changed is item:
            return item
        if isinstance(item, tuple):
            return _checked_recording(changed, item, self._speed_of(modality))
        return as_unchanged_size(changed, item) if hasattr(item, "convert") else changed

    def prepared(self, slot: int, modality: str, tensor: Tensor) -> Tensor:
        """Return the prepared medium, changed; raise `UserError` for a new shape."""
        changed = tensor
        for number, step in enumerate(self.augmentation.steps.get(modality, ())):
            if isinstance(step, Transformation) and step.kind == "prepared":
                changed = apply(step, changed, self._generator(slot, number))
        if changed.shape != tensor.shape:
            raise UserError(
                f"the transformations turn prepared input of shape {list(tensor.shape)} into {list(changed.shape)}, "
                "expected the same shape"
            )
        return changed

    def _speed_of(self, modality: str) -> float:
        return self.speed if self.augmentation.speed and self.augmentation.speed[0] == modality else 1.0

    def _generator(self, place: int, step: int) -> np.random.Generator:
        return make_generator(self.seed, self.index, place * _STEPS + step)


@dataclass(frozen=True)
class PlayedAt(Preprocessor):
    """Counts the features of recordings that are played at another speed before `plain` prepares them."""

    plain: Preprocessor
    speed: float

    def size(self, header: Header) -> Size:
        assert isinstance(header, AudioHeader)
        return self.plain.size(
            AudioHeader(num_samples_at(self.speed, header.num_samples), header.sample_rate)
        )

    def prepare(self, item: Recording) -> Tensor:
        return self.plain.prepare(change_speed(item, self.speed))

    def fingerprint(self) -> str:
        return f"{self.plain.fingerprint()} at {self.speed:g}"


def _checked_recording(changed: Any, item: Recording, speed: float) -> Recording:
    wanted = num_samples_at(speed, len(item[0]))
    is_recording = isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[0], np.ndarray)
    if not is_recording or changed[0].shape != (wanted,) or changed[1] != item[1]:
        found = f"{changed[0].shape} at {changed[1]} Hz" if is_recording else type(changed).__name__
        raise UserError(
            f"the transformations turn a recording of {len(item[0])} samples at {item[1]} Hz into {found}, expected "
            f"({wanted},) at {item[1]} Hz; only Speed may change the length"
        )
    waveform = changed[0].astype(np.float32, copy=False)
    if not np.isfinite(waveform).all():
        raise UserError("the transformations give samples that are no numbers; take them out one by one")
    return waveform, item[1]


def _check_text_step(place: str, step: Step, is_last: bool) -> None:
    if not isinstance(step, Transformation) or step.kind != "text":
        raise UserError(
            f"{place} is {type(step).__name__}, which changes no text, expected kebyt5_xm.data.augmentation.Perturb "
            "with a text perturbation, such as typos"
        )
    if not is_last and getattr(step, "name", "") == "byte_noise":
        raise UserError(f"{place} is byte_noise, after which a text is no text any more; make it the last")


def _check_step(place: str, modality: str, step: Step, interface: MediaInterface) -> None:
    kind = step.kind if isinstance(step, Transformation) else "image"
    name = type(step).__name__
    if kind == "prepared":
        if interface.media != "audio" or interface.preprocessor.waveform_rate is not None:
            what = "images" if interface.media == "image" else "its encoder's input, which is no spectrogram"
            raise UserError(
                f"{place} is {name}, which masks frames, but '{modality}' takes {what}; take it out; an encoder such "
                "as encoders.stems.LogMelEncoder takes frames"
            )
    elif kind != interface.media:
        raise UserError(
            f"{place} is {name}, for media of the kind {kind}, but '{modality}' takes {interface.media}; take it "
            "out, or write it under another modality"
        )
