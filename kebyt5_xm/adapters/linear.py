"""Adapters of linear layers: on each feature (`Linear`, `MLP`), or on concatenated neighbours."""

import math

from torch import Tensor, nn

from kebyt5_xm.adapters.adapter import Adapter, left_aligned
from kebyt5_xm.errors import UserError


class Linear(Adapter):
    """One linear layer: the smallest adapter, and a good first choice for a strong frozen encoder."""

    def __init__(self, in_dim: int, d_model: int, begin_end: bool = False, modality_vector: bool = False):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        self.projection = nn.Linear(in_dim, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        return self.projection(features), mask

    def count(self, size: tuple[int, ...]) -> int:
        return math.prod(size)

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (1,) * len(size)


class MLP(Adapter):
    """Two linear layers with a GELU between them, as in LLaVA 1.5 (Liu et al. 2023, section 3.3).

    `hidden` is the width between them (default: `d_model`).
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        hidden: int | None = None,
        begin_end: bool = False,
        modality_vector: bool = False,
    ):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        self.projection = _two_layers(in_dim, hidden, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        return self.projection(features), mask

    def count(self, size: tuple[int, ...]) -> int:
        return math.prod(size)

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (1,) * len(size)


class FrameStacking(Adapter):
    """Every `stack` consecutive features become one slot: the usual way to shorten speech.

    The last slot of an item is padded with zeros. A grid is read row by row.
    `hidden` is the width between the two layers (default: `d_model`).
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        stack: int = 4,
        hidden: int | None = None,
        begin_end: bool = False,
        modality_vector: bool = False,
    ):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        if stack < 1:
            raise UserError(f"found stack {stack}, expected at least 1")
        self.stack = stack
        self.projection = _two_layers(stack * in_dim, hidden, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        features, mask = left_aligned(features, mask)
        padding = -features.shape[1] % self.stack
        features = nn.functional.pad(features, (0, 0, 0, padding))
        mask = nn.functional.pad(mask, (0, padding))[:, :: self.stack]
        stacked = features.reshape(*mask.shape, self.stack * self.in_dim)  # [N, M, stack x W]
        return self.projection(stacked), mask

    def count(self, size: tuple[int, ...]) -> int:
        return math.ceil(math.prod(size) / self.stack)

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...] | None:
        if size[-1] % self.stack and len(size) == 2:
            return None  # slots reach over the ends of rows
        return (*(1,) * (len(size) - 1), self.stack)


class PixelShuffle(Adapter):
    """Every square of `factor` x `factor` features of a grid becomes one slot (space to depth).

    The inverse of the upsampling of Shi et al. 2016, on vision features as in InternVL (Chen et al. 2024).
    A grid whose sides are not multiples of `factor` is padded with zeros at the bottom and on the right.
    `hidden` is the width between the two layers (default: `d_model`).
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        factor: int = 2,
        hidden: int | None = None,
        begin_end: bool = False,
        modality_vector: bool = False,
    ):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        if factor < 1:
            raise UserError(f"found factor {factor}, expected at least 1")
        self.factor = factor
        self.projection = _two_layers(factor * factor * in_dim, hidden, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        if grid is None:
            raise UserError(_NO_GRID)
        bottom, right = (-side % self.factor for side in grid)
        features = nn.functional.pad(features.unflatten(1, grid), (0, 0, 0, right, 0, bottom))
        mask = nn.functional.pad(mask.unflatten(1, grid), (0, right, 0, bottom))
        # Items fill the top-left corner of the grid, so a square has a valid feature if its first one is valid.
        mask = mask[:, :: self.factor, :: self.factor]
        batch, rows, columns = mask.shape
        squares = features.reshape(batch, rows, self.factor, columns, self.factor, self.in_dim).transpose(
            2, 3
        )
        return self.projection(squares.reshape(batch, rows * columns, -1)), mask.flatten(1)

    def count(self, size: tuple[int, ...]) -> int:
        if len(size) != 2:
            raise UserError(_NO_GRID)
        return math.prod(math.ceil(side / self.factor) for side in size)

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (self.factor, self.factor)


def _two_layers(in_dim: int, hidden: int | None, d_model: int) -> nn.Sequential:
    """Return linear, GELU, linear; `hidden` None means `d_model`."""
    hidden = d_model if hidden is None else hidden
    if hidden < 1:
        raise UserError(f"found hidden {hidden}, expected at least 1")
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, d_model))


_NO_GRID = (
    "found an encoder that gives no grid of (rows, columns), which PixelShuffle needs: "
    "use FrameStacking, MLP or PerceiverResampler"
)
