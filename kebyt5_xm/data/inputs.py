"""The model's inputs: examples, and the tensors of one forward pass made from them.

Letters in shapes: B rows, S encoder positions, T decoder positions.
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
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

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

    `input_ids` and `target_ids` are byte ids (int16, end of sequence included, never padded); PAD marks the slots of
    `media`. `counted` is False for filler, which has no labels in the batch. `skipped` is the cause if the example
    could not be made.
    """

    input_ids: NDArray[np.int16]
    target_ids: NDArray[np.int16]
    media: tuple[MediaItem, ...] = ()
    counted: bool = True
    skipped: Skip | None = None

    @classmethod
    def of_texts(cls, text: str, target: str) -> "Example":
        """Return an example of text alone."""
        return cls(np.concatenate([encode(text), END]), np.concatenate([encode(target), END]))

    @classmethod
    def without_target(cls, ids: Sequence[NDArray[np.int16]], media: Sequence[MediaItem] = ()) -> "Example":
        """Return an example for inference: `ids` end to end and the end of sequence, without a target."""
        return cls(np.concatenate([*ids, END]), END, tuple(media))

    @classmethod
    def empty(cls, skipped: Skip | None = None) -> "Example":
        """Return the filler for an example that could not be made."""
        return cls(END, END, counted=False, skipped=skipped)


class Tensors:
    """A dataclass whose tensors are converted and moved together; other fields stay unchanged."""

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        """Return a copy with `function` applied to every tensor; `of_media`, if given, to the tensors of media."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # pyright: ignore[reportArgumentType]
        changed = {name: function(value) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # pyright: ignore[reportArgumentType]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy on `device`, ids widened to int64, media in their own type.

        Page-locked tensors move to a GPU without waiting for it, whatever `non_blocking` says: Lightning sets it for
        single tensors alone, and each of the others would wait for the work of the last batch.
        """
        to_gpu = torch.device(device).type == "cuda"

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking or (to_gpu and tensor.is_pinned()))

        def widen(tensor: Tensor) -> Tensor:
            kept = tensor.is_floating_point() or tensor.dtype == torch.bool
            return move(tensor) if kept else move(tensor).long()

        return self.map(widen, move)


@dataclass
class MediaGroup(Tensors):
    """The media of one encoder call in a micro-batch, all of one modality, and the positions of their slots."""

    modality: str
    prepared: Tensor  # [N, ...] collated by the encoder's preprocessor
    lengths: Tensor  # [N]
    row: Tensor  # [N] row of the batch
    start: Tensor  # [N] first encoder position of the slots
    count: Tensor  # [N] number of slots
    encoded: bool = False  # `prepared` holds features [N, F, W] or [N, R, C, W], and the encoder does not run

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        """Return a copy with `of_media`, or else `function`, applied to every tensor."""
        return super().map(of_media or function)


@dataclass
class Packing(Tensors):
    """The number of the example at every position of a packed row, from 1; 0 is padding.

    Encoder self-attention, decoder self-attention and cross-attention see the positions of one example, and decoder
    inputs are shifted for each example. T5's relative bias needs no change: it depends on distance alone. So a packed
    row gives the same results as its examples in separate rows, to floating-point tolerance.
    """

    segments: Tensor  # [B, S]
    target_segments: Tensor  # [B, T]

    @property
    def cross_segments(self) -> Tensor | None:
        """The segment of the encoder [B, T] that each decoder position sees; None for segment 1."""
        return self.target_segments

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T]: PAD, the start id, then the labels, for each example."""
        shifted = torch.full_like(labels, PAD_ID)
        same = self.target_segments[:, 1:] == self.target_segments[:, :-1]
        shifted[:, 1:] = labels[:, :-1].masked_fill(~same | (labels[:, :-1] < 0), PAD_ID)
        return shifted


@dataclass
class Inputs(Tensors):
    """The inputs of the model's encoder side for B rows."""

    input_ids: Tensor  # [B, S] byte ids, PAD at slots and after the end
    lengths: Tensor  # [B] encoder positions in use
    full: bool = False  # True if no row is padded: no mask is needed
    packing: Packing | None = None  # if rows hold several examples
    extents: NDArray[np.int64] | None = None  # [N, 5] of each example, on the host: see `collate`
    media: list[MediaGroup] = field(default_factory=list)  # one entry for each encoder call

    def attention_mask(self) -> Tensor | None:
        """Return the encoder's attention mask [B, S] bool, or None if every row is full (a faster path)."""
        return None if self.full else length_mask(self.lengths, self.input_ids.shape[1])

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        packing = None if self.packing is None else self.packing.map(function)
        media = [group.map(function, of_media) for group in self.media]
        return replace(super().map(function), packing=packing, media=media)
