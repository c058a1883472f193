"""An adapter that shortens a sequence with strided convolutions."""

import itertools
import math

from torch import Tensor, nn

from kebyt5_xm.adapters.adapter import Adapter, left_aligned
from kebyt5_xm.errors import UserError


class StridedConvolution(Adapter):
    """`layers` convolutions of `stride`, each with a GELU, then a linear layer.

    A layer maps n vectors to ceil(n / stride): window j starts (kernel - stride) // 2 features before feature
    j x stride, and positions outside the item count as zero, with or without padding in the batch. So the count is
    exact for every length, every feature is used, and no padding is. A grid is read row by row.
    `kernel` must be at least `stride`. `hidden` is the width of the convolutions (default: `d_model`).
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        stride: int = 2,
        kernel: int = 3,
        layers: int = 2,
        hidden: int | None = None,
        begin_end: bool = False,
        modality_vector: bool = False,
    ):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        hidden = d_model if hidden is None else hidden
        if min(stride, layers, hidden) < 1:
            raise UserError(
                f"found stride {stride}, layers {layers}, hidden {hidden}, expected each at least 1"
            )
        if kernel < stride:
            raise UserError(
                f"found kernel {kernel} below stride {stride}, which skips features: raise kernel"
            )
        self.stride = stride
        self.kernel = kernel
        widths = [in_dim] + [hidden] * layers
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, next_width, kernel, stride) for width, next_width in itertools.pairwise(widths)
        )
        self.projection = nn.Linear(hidden, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        features, mask = left_aligned(features, mask)
        sequence = features.transpose(1, 2)  # [N, W, F]
        before = (self.kernel - self.stride) // 2
        for convolution in self.convolutions:
            length, mask = mask.shape[1], mask[:, :: self.stride]
            after = max(mask.shape[1] - 1, 0) * self.stride + self.kernel - before - length
            sequence = nn.functional.gelu(convolution(nn.functional.pad(sequence, (before, after))))
            # The bias changed the padding; the next layer must get zeros there.
            sequence = sequence[..., : mask.shape[1]].masked_fill(~mask[:, None], 0.0)
        return self.projection(sequence.transpose(1, 2)), mask

    def count(self, size: tuple[int, ...]) -> int:
        count = math.prod(size)
        for _ in self.convolutions:
            count = math.ceil(count / self.stride)
        return count

    def slot_extent(self, size: tuple[int, ...]) -> tuple[int, ...] | None:
        extent = self.stride ** len(self.convolutions)
        return (extent,) if len(size) == 1 else (1, extent) if size[1] % extent == 0 else None
