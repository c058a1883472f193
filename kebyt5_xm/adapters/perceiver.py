"""An adapter with a fixed number of slots: learned queries read the features by attention."""

import torch
from torch import Tensor, nn

from kebyt5_xm.adapters.adapter import Adapter
from kebyt5_xm.errors import UserError

# Attention's wavelengths run from 2 pi to 10000 x 2 pi positions (Vaswani et al. 2017, section 3.5).
MAX_WAVELENGTH = 10_000.0
# Small compared with the output of attention, so that the slots depend on the input from the first step on.
QUERY_STD = 0.02


class PerceiverResampler(Adapter):
    """`queries` learned vectors attend to the features in `layers` blocks.

    As in Flamingo (Alayrac et al. 2022, section 3.1.1), the queries of every block attend to the features *and
    to themselves*, so that an item without valid features needs no special case. Attention ignores the order of the
    features, so sinusoids of their position are added: of row and column if the encoder gives a grid. Every item
    gets exactly `queries` slots. `width` is the width of the blocks (default: `d_model`); it must be divisible by
    `heads` and by 4.
    """

    def __init__(
        self,
        in_dim: int,
        d_model: int,
        queries: int = 64,
        layers: int = 2,
        heads: int = 8,
        width: int | None = None,
        begin_end: bool = False,
        modality_vector: bool = False,
    ):
        super().__init__(in_dim, d_model, begin_end, modality_vector)
        width = d_model if width is None else width
        if min(queries, layers, heads, width) < 1 or width % heads or width % 4:
            raise UserError(
                f"found queries {queries}, layers {layers}, heads {heads}, width {width}, expected each at "
                "least 1 and a width divisible by heads and by 4: set width or heads"
            )
        self.inputs = nn.Sequential(nn.Linear(in_dim, width), nn.LayerNorm(width))
        self.queries = nn.Parameter(torch.randn(queries, width) * QUERY_STD)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.projection = nn.Linear(width, d_model)

    def map(self, features: Tensor, mask: Tensor, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        inputs = self.inputs(features)  # [N, F, E]
        inputs = inputs + _positions(mask, grid, inputs.shape[2]).to(inputs.dtype)
        count = self.queries.shape[0]
        queries = self.queries.expand(mask.shape[0], -1, -1)  # [N, Q, E]
        attended = nn.functional.pad(mask, (0, count), value=True)[:, None, None]  # [N, 1, 1, F + Q]
        for block in self.blocks:
            queries = block(queries, inputs, attended)
        return self.projection(queries), mask.new_ones(mask.shape[0], count)

    def count(self, size: tuple[int, ...]) -> int:
        return self.queries.shape[0]


class _Block(nn.Module):
    """Attention of the queries to the inputs and themselves, then a feed-forward network, each after a norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_norm = nn.LayerNorm(width)
        # No biases: softmax cancels a bias of the keys, so it would never get a gradient.
        self.to_query = nn.Linear(width, width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries: Tensor, inputs: Tensor, attended: Tensor) -> Tensor:
        normed = self.query_norm(queries)
        query = self.to_query(normed).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [N, H, Q, E / H]
        both = torch.cat([inputs.to(normed.dtype), normed], dim=1)
        both = self.to_key_value(both).unflatten(2, (2, self.heads, -1))  # [N, F + Q, 2, H, E / H]
        key, value = both.transpose(1, 3).unbind(2)  # each [N, H, F + Q, E / H]
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attended)
        queries = queries + self.output(read.transpose(1, 2).flatten(2))
        return queries + self.feed_forward(queries)


def _positions(mask: Tensor, grid: tuple[int, int] | None, width: int) -> Tensor:
    """Return sinusoids [N or 1, F, width] of each feature's position among the valid ones, or in the grid."""
    if grid is None:
        return _sinusoids((mask.cumsum(dim=1) - 1).clamp(min=0), width)
    index = torch.arange(grid[0] * grid[1], device=mask.device)
    row, column = _sinusoids(index // grid[1], width // 2), _sinusoids(index % grid[1], width // 2)
    return torch.cat([row, column], dim=1)[None]


def _sinusoids(position: Tensor, width: int) -> Tensor:
    exponent = torch.arange(width // 2, device=position.device) / (width // 2)
    angle = position[..., None] / MAX_WAVELENGTH**exponent  # [..., width / 2], float32
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
