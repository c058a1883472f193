"""What attention on the CPU keeps for its backward pass, and what it returns there.

Letters in shapes: B rows, H heads, L positions, d width of a head, M the table's largest distance.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Saved(NamedTuple):
    """The inputs and outputs of one forward pass. `table` and `bias` say the same, pair by pair in `bias`."""

    query: Tensor  # [B, H, L, d]
    key: Tensor  # [B, H, L, d]
    value: Tensor  # [B, H, L, d]
    table: Tensor  # [H, 2M + 1]
    bias: Tensor  # [1, H, L, L], -inf for pairs that do not see each other
    output: Tensor  # [B, H, L, d]
    log_sum: Tensor  # [B, H, L] logarithm of a query's sum of exponentials

    @property
    def max_distance(self) -> int:
        """M."""
        return self.table.shape[1] // 2

    def delta(self, gradient: Tensor) -> Tensor:
        """Return [B, H, L, 1]: what the softmax subtracts from the gradients of a query's weights."""
        return (gradient * self.output).sum(-1, keepdim=True)


class Gradients(NamedTuple):
    """The gradients of queries, keys, values and the table."""

    query: Tensor
    key: Tensor
    value: Tensor
    table: Tensor


def fused_forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return torch's fused attention [B, H, L, d] and its `Saved.log_sum`."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, False, attn_mask=bias, scale=1.0
    )


def fused_backward(saved: Saved, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values by torch's fused kernel, which gives the bias none."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient,
        saved.query,
        saved.key,
        saved.value,
        saved.output,
        saved.log_sum,
        0.0,
        False,
        attn_mask=saved.bias,
        scale=1.0,
    )


def fold(scores: Tensor, first: int, max_distance: int) -> Tensor:
    """Return the sums [H, 2M + 1] over the pairs of each distance; key 0 of `scores` [H, T, S] is at `first`."""
    heads, queries, keys = scores.shape
    # Rows of T + S numbers, read as rows of T + S - 1, are each shifted by one, so that a distance is a column.
    sheared = F.pad(scores.flip(1), (0, queries)).view(heads, -1)[:, : queries * (queries + keys - 1)]
    by_distance = sheared.reshape(heads, queries, -1).sum(1)
    distances = torch.arange(queries + keys - 1) + first - (queries - 1)
    table = scores.new_zeros(heads, 2 * max_distance + 1)
    return table.index_add_(1, distances.clamp(-max_distance, max_distance) + max_distance, by_distance)
