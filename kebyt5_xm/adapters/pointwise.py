"""Adapters that map each feature to one slot."""

import math

from torch import Tensor, nn

from kebyt5_xm.adapters.adapter import Adapter
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
        self.projection = two_layers(in_dim, hidden, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        return self.projection(features), mask

    def count(self, size: tuple[int, ...]) -> int:
        return math.prod(size)


def two_layers(in_dim: int, hidden: int | None, d_model: int) -> nn.Sequential:
    """Return linear, GELU, linear; `hidden` None means `d_model`."""
    hidden = d_model if hidden is None else hidden
    if hidden < 1:
        raise UserError(f"found hidden {hidden}, expected at least 1")
    return nn.Sequential(nn.Linear(in_dim, hidden), nn.GELU(), nn.Linear(hidden, d_model))
