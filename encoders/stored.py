"""Features that were computed elsewhere and stored as arrays, used as they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kebyt5_xm.encoder import ArrayHeader, Encoded, Encoder, Header, Preprocessor, Size, length_mask
from kebyt5_xm.errors import UserError


@dataclass(frozen=True)
class StoredPreprocessor(Preprocessor):
    """Checks an array [n, dim], or [rows, columns, dim] for a grid, and converts it to float32."""

    dim: int
    grid: bool
    pads: bool = True

    def size(self, header: Header) -> Size:
        assert isinstance(header, ArrayHeader)
        *axes, dim = header.shape or (0,)
        if len(axes) != (2 if self.grid else 1) or dim != self.dim or 0 in axes:
            expected = f"[rows, columns, {self.dim}]" if self.grid else f"[n, {self.dim}]"
            raise UserError(
                f"found stored features of shape {list(header.shape)}, expected {expected}; correct the file, or dim "
                "or grid of StoredFeatures"
            )
        return (axes[0], axes[1]) if self.grid else (axes[0],)

    def prepare(self, item: Any) -> Tensor:
        self.size(ArrayHeader(tuple(item.shape)))
        features = np.array(item, dtype=np.float32)
        if not np.isfinite(features).all():
            raise UserError(
                "found stored features that are not finite, expected finite numbers; compute the file again"
            )
        return torch.from_numpy(features)


class StoredFeatures(Encoder):
    """`.npy` or `.safetensors` arrays as features: `dim` is their last axis; with `grid` they have three axes.

    Sequences may be padded; grids are batched by equal size.
    """

    media = "array"

    def __init__(self, dim: int, grid: bool = False) -> None:
        super().__init__()
        self.out_dim = dim
        self._preprocessor = StoredPreprocessor(dim, grid, pads=not grid)

    def preprocessor(self) -> StoredPreprocessor:
        return self._preprocessor

    def dummy(self) -> tuple[Tensor, Tensor]:
        axes = (1, 1) if self._preprocessor.grid else (1,)
        return torch.zeros(1, *axes, self.out_dim), torch.tensor([1])

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        if not self._preprocessor.grid:
            return Encoded(prepared, length_mask(lengths, prepared.shape[1]))
        return Encoded.full(prepared.flatten(1, 2), (prepared.shape[1], prepared.shape[2]))
