"""Attention on the CPU with a relative bias that trains.

torch's fused CPU kernel takes a bias but gives it no gradient; `scaled_dot_product_attention` therefore materialises
every score, several times over, if the bias needs one. Here the forward pass is the fused kernel's. The backward pass
materialises the scores of a few rows at a time, or, of long rows, those of neighbouring positions (`banded`).
"""

from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.model.attention import banded
from kebyt5_xm.model.attention.saved import Gradients, Saved, fold, fused_forward

NUM_MATERIALIZED = 1 << 20
"""Scores that are materialised at a time: 4 MB in fp32, which stay in a core's caches."""


class BiasedAttention(torch.autograd.Function):
    """softmax(query key^T + bias) value; the letters are those of `Saved`."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, bias: Tensor, causal: bool
    ) -> Tensor:
        """Return [B, H, L, d]. `bias` [1, H, L, L] is that of `table`, with -inf above the diagonal if `causal`."""
        output, log_sum = fused_forward(query, key, value, bias)
        ctx.save_for_backward(query, key, value, table, bias, output, log_sum)
        ctx.causal = causal
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        """Return the gradients of `forward`'s arguments."""
        saved = Saved(*ctx.saved_tensors)
        if not ctx.causal and banded.is_long(gradient.shape[2], saved.max_distance):
            return *banded.backward(saved, gradient), None, None
        return *_backward(saved, gradient), None, None


def _backward(saved: Saved, gradient: Tensor) -> Gradients:
    """Return the gradients; the scores of a few rows at a time are materialised."""
    num_rows, heads, length, _ = saved.query.shape
    delta = saved.delta(gradient)
    d_query, d_key, d_value = (torch.empty_like(t) for t in (saved.query, saved.key, saved.value))
    total = torch.zeros_like(saved.bias[0])
    size = min(num_rows, max(1, NUM_MATERIALIZED // (heads * length * length)))
    buffers = gradient.new_empty(2, size, heads, length, length)
    for first in range(0, num_rows, size):
        rows = slice(first, first + size)
        queries, keys, values, gradients = (
            saved.query[rows],
            saved.key[rows],
            saved.value[rows],
            gradient[rows],
        )
        weights, d_scores = buffers[:, : len(queries)]
        torch.matmul(queries, keys.transpose(2, 3), out=weights)
        weights.add_(saved.bias).sub_(saved.log_sum[rows, :, :, None]).exp_()
        torch.matmul(gradients, values.transpose(2, 3), out=d_scores)
        d_scores.sub_(delta[rows]).mul_(weights)
        total += d_scores.sum(0)
        d_value[rows] = weights.transpose(2, 3) @ gradients
        d_query[rows] = d_scores @ keys
        d_key[rows] = d_scores.transpose(2, 3) @ queries
    return Gradients(d_query, d_key, d_value, fold(total, 0, saved.max_distance))
