"""The interface of an adapter: features and their mask become calibrated slots.

Letters in shapes: N items, F features each (padded), M slots each (padded), W = `in_dim`, D = `d_model`.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from kebyt5_xm.adapters.slot_grid import SlotGrid
from kebyt5_xm.errors import UserError

# T5's own layer-norm epsilon (`layer_norm_epsilon` in every published byt5 config.json).
EPSILON = 1e-6


class Adapter(nn.Module, ABC):
    """Maps the features of an encoder to slots: vectors among the byte embeddings.

    A subclass takes `in_dim` and `d_model` first and implements `map` and `count`. This class does what all
    adapters have in common:

    - invalid features are set to zero before `map`, so that no padding value (not even a NaN) reaches a valid slot;
    - the valid slots of every item are moved to the left, and `begin_end` adds a learned vector before the first
      and another one after the last;
    - `modality_vector` adds one learned vector (initially zero) to every slot;
    - the last step is a root-mean-square norm with a learned gain per dimension, for every slot including the
      begin and end vectors. `calibrate` sets the initial gain to the scale of the byte embeddings.
    """

    def __init__(self, in_dim: int, d_model: int, begin_end: bool = False, modality_vector: bool = False):
        super().__init__()
        if in_dim < 1 or d_model < 1:
            raise UserError(f"found in_dim {in_dim} and d_model {d_model}, expected widths of at least 1")
        self.in_dim = in_dim
        self.d_model = d_model
        self.begin = nn.Parameter(torch.randn(d_model)) if begin_end else None
        self.end = nn.Parameter(torch.randn(d_model)) if begin_end else None
        self.modality_vector = nn.Parameter(torch.zeros(d_model)) if modality_vector else None
        self.gain = nn.Parameter(torch.ones(d_model))

    @abstractmethod
    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """Map features [N, F, W] and their bool mask [N, F] to vectors [N, M, D] and their mask [N, M].

        Invalid features are zero. With a grid, N is rows x columns in row-major order, and a smaller item fills the
        top-left corner; without a grid, valid features may have any positions, and their order counts.
        """

    @abstractmethod
    def count(self, size: tuple[int, ...]) -> int:
        """Return the number of valid vectors that `map` returns for one item of `size`: (n,) or (rows, columns)."""

    def num_slots(self, size: tuple[int, ...]) -> int:
        """Return the exact number of slots of an item of `size`, begin and end vectors included.

        `size` comes from the encoder's preprocessor: (features,) or (rows, columns).
        Raises `UserError` for any other size, and for a size that this adapter cannot map.
        """
        if len(size) not in (1, 2) or min(size) < 0:
            raise UserError(
                f"found size {size}, expected (features,) or (rows, columns): correct the encoder"
            )
        return self.count(size) + (0 if self.begin is None else 2)

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...] | None:
        """Return how many features a slot covers along each axis of `size`, the first from the first feature on.

        None if slots cover no regions of their own, as those of a resampler, or none that are alike.
        """
        return None

    def slot_grid(self, size: tuple[int, ...]) -> SlotGrid | None:
        """Return the grid that the slots of an item of `size` form; None if they form none."""
        extent = self.slot_extent(size)
        return None if extent is None else SlotGrid.of(size, extent, 0 if self.begin is None else 1)

    def calibrate(self, rms: float) -> None:
        """Set the gain to `rms`, the root mean square of the byte embedding."""
        assert 0 < rms < math.inf, rms
        with torch.no_grad():
            self.gain.fill_(rms)

    def forward(
        self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return slots [N, M, D] (zero where invalid) and their bool mask [N, M], valid slots first.

        `features` [N, F, W] and `mask` [N, F] (bool, True = valid) and `grid` are those of `Encoded`.
        """
        assert features.ndim == 3, features.shape
        assert features.shape[2] == self.in_dim, (features.shape, self.in_dim)
        assert mask.shape == features.shape[:2], (mask.shape, features.shape)
        assert grid is None or math.prod(grid) == mask.shape[1], (grid, mask.shape)
        # The precision of a frozen encoder may differ from the adapter's.
        features = features.to(self.gain.dtype).masked_fill(~mask[..., None], 0.0)
        vectors, mask = left_aligned(*self.map(features, mask, grid))  # [N, M, D], [N, M]
        if self.begin is not None and self.end is not None:
            vectors, mask = _add_begin_end(vectors, mask, self.begin, self.end)  # [N, M + 2, D], [N, M + 2]
        if self.modality_vector is not None:
            vectors = vectors + self.modality_vector
        vectors = nn.functional.rms_norm(vectors.float(), (self.d_model,), eps=EPSILON)
        vectors = vectors.to(self.gain.dtype) * self.gain
        return vectors.masked_fill(~mask[..., None], 0.0), mask


def left_aligned(vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move the valid vectors of every item to the front, in their order: [N, M, D], [N, M] -> the same."""
    # A stable sort keeps the order, and no shape depends on the data, so nothing waits for a GPU.
    order = torch.argsort(~mask, dim=1, stable=True)
    return vectors.gather(1, order[..., None].expand_as(vectors)), mask.gather(1, order)


def scale_ratio(vectors: Tensor, mask: Tensor, rms: float) -> Tensor:
    """Return the root mean square of the valid slots divided by that of the byte embeddings: one number.

    1.0 means that slots have the scale of bytes. NaN if no slot is valid.
    """
    valid = mask[..., None]
    squares = vectors.detach().float().square().masked_fill(~valid, 0.0)
    return (squares.sum() / (valid.sum() * vectors.shape[-1])).sqrt() / rms


def _add_begin_end(vectors: Tensor, mask: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    batch, _, width = vectors.shape
    lengths = mask.sum(dim=1, keepdim=True)  # [N, 1]
    vectors = torch.cat(
        [begin.to(vectors.dtype).expand(batch, 1, width), vectors, vectors.new_zeros(batch, 1, width)], dim=1
    )
    position = torch.arange(vectors.shape[1], device=vectors.device)  # [M + 2]
    at_end = position == lengths + 1  # [N, M + 2]
    return torch.where(at_end[..., None], end.to(vectors.dtype), vectors), position < lengths + 2
