"""What the model takes: examples, and the inputs of one forward pass that are made of them.

Shape suffixes: B rows, S encoder positions, T decoder positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.data.media.bad_sample import Skip
from kebyt5_xm.encoder import length_mask
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

Map = Callable[[Tensor], Tensor]

END = np.asarray([EOS_ID], dtype=np.int16)
"""The end of sequence, as ids."""


@dataclass(frozen=True)
class MediaItem:
    """One prepared medium and its slots: `count` encoder positions from `start` on."""

    modality: str
    prepared: Tensor
    start: int
    count: int


@dataclass(frozen=True)
class Example:
    """One example, ready to be collated.

    `input_ids` and `target_ids` are byte ids (int16, end-of-sequence included, never padded); PAD stands at
    every slot of `media`. `counted` is False for an example that only fills a place: it has no labels in the
    batch. One that could not be made says why in `skipped`.
    """

    input_ids: NDArray[np.int16]
    target_ids: NDArray[np.int16]
    media: tuple[MediaItem, ...] = ()
    counted: bool = True
    skipped: Skip | None = None

    @classmethod
    def asked(cls, ids: Sequence[NDArray[np.int16]], media: Sequence[MediaItem] = ()) -> "Example":
        """Return an example without a target: `ids` end to end, and the end of sequence."""
        return cls(np.concatenate([*ids, END]), END, tuple(media))

    @classmethod
    def empty(cls, skipped: Skip | None = None) -> "Example":
        """Return an example that fills the place of one that could not be made."""
        return cls(END, END, counted=False, skipped=skipped)


class Tensors:
    """A dataclass of tensors that move together; the fields of other types stay as they are."""

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        """Return a copy with `function` applied to every tensor, and `of_media`, if given, to those of media."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # pyright: ignore[reportArgumentType]
        changed = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # pyright: ignore[reportArgumentType]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy on `device`, ids widened to int64; media as they are, whatever their type."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        def widen(tensor: Tensor) -> Tensor:
            kept = tensor.is_floating_point() or tensor.dtype == torch.bool
            return move(tensor) if kept else move(tensor).long()

        return self.map(widen, move)


@dataclass
class MediaGroup(Tensors):
    """The media of one modality in one micro-batch that share one encoder call, and where their slots are."""

    modality: str
    prepared: Tensor  # [N, ...] as the encoder's preprocessor collated it
    lengths: Tensor  # [N]
    row: Tensor  # [N] row of the batch
    start: Tensor  # [N] first encoder position of the slots
    count: Tensor  # [N] number of slots
    encoded: bool = False  # `prepared` holds features [N, F, D] or [N, R, C, D], and the encoder does not run

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        """Return a copy with `of_media`, or else `function`, applied to every tensor."""
        return super().map(of_media or function)


@dataclass
class Packing(Tensors):
    """Which example of its row every position belongs to, counted from 1; 0 is padding.

    Encoder self-attention, decoder self-attention and cross-attention all get a mask of their own, and decoder inputs
    are shifted example by example. T5's relative bias needs nothing: it depends on distance alone. So a packed row
    computes what its examples would compute in rows of their own, to floating-point tolerance.
    """

    segments: Tensor  # [B, S]
    target_segments: Tensor  # [B, T]

    def encoder_mask(self) -> Tensor:
        """Return [B, 1, S, S] bool: query and key are of one example. Padding sees padding, so no row is empty."""
        return (self.segments[:, :, None] == self.segments[:, None, :])[:, None]

    def decoder_mask(self) -> Tensor:
        """Return [B, 1, T, T] bool: of one example, and the key is not later."""
        segments = self.target_segments
        causal = torch.ones(
            segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
        ).tril()
        return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]

    def cross_mask(self) -> Tensor:
        """Return [B, 1, T, S] bool: of one example. Padding, which has no loss, sees everything."""
        targets = self.target_segments[:, :, None]
        return ((targets == self.segments[:, None, :]) | (targets == 0))[:, None]

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T]: the start id, which is PAD, before each example's first label."""
        shifted = torch.full_like(labels, PAD_ID)
        same = self.target_segments[:, 1:] == self.target_segments[:, :-1]
        shifted[:, 1:] = labels[:, :-1].masked_fill(~same | (labels[:, :-1] < 0), PAD_ID)
        return shifted


@dataclass
class Inputs(Tensors):
    """What the encoder side of the model takes for B rows."""

    input_ids: Tensor  # [B, S] byte ids, PAD at slots and behind the end
    lengths: Tensor  # [B] encoder positions in use
    full: bool = False  # no row is padded, so no mask is needed
    packing: Packing | None = None  # where rows hold several examples
    media: list[MediaGroup] = field(default_factory=list)  # one entry for every encoder call

    def attention_mask(self) -> Tensor | None:
        """Return the encoder's mask [B, S] bool, or None when every row is full (the faster attention path)."""
        return None if self.full else length_mask(self.lengths, self.input_ids.shape[1])

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        packing = None if self.packing is None else self.packing.map(function)
        media = [group.map(function, of_media) for group in self.media]
        return replace(super().map(function), packing=packing, media=media)
