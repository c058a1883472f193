"""Attention on the CPU with a relative bias that trains.

torch's fused CPU kernel takes a bias but gives it no gradient; `scaled_dot_product_attention` therefore materialises
every score, several times over, if the bias needs one. Here, few weights are kept from the forward pass. Of many, the
forward pass is the fused kernel's, and the backward pass materialises those of a few rows at a time (`materialized`)
or, of long rows, those of neighbouring positions (`banded`).
"""

from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.model.attention import banded, materialized
from kebyt5_xm.model.attention.saved import Saved, fused_forward

MAX_KEPT = 1 << 22
"""Weights of a layer that are kept, 16 MB in fp32: it takes 0.7 to 0.85 of the time of computing them again."""


class BiasedAttention(torch.autograd.Function):
    """softmax(query key^T + bias) value; the letters are those of `Saved`."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, table: Tensor, bias: Tensor, causal: bool
    ) -> Tensor:
        """Return [B, H, L, d]. `bias` [1, H, L, L] is that of `table`, with -inf above the diagonal if `causal`."""
        ctx.is_banded = not causal and banded.is_long(query.shape[2], table.shape[1] // 2)
        if not ctx.is_banded and len(query) * bias.numel() <= MAX_KEPT:
            output, *kept = materialized.forward(query, key, value, bias)  # the weights
        else:
            output, log_sum = fused_forward(query, key, value, bias)
            kept = [output, log_sum] if ctx.is_banded else []
        ctx.save_for_backward(query, key, value, table, bias, *kept)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        """Return the gradients of `forward`'s arguments."""
        query, key, value, table, bias, *kept = ctx.saved_tensors
        if ctx.is_banded:
            gradients = banded.backward(Saved(query, key, value, table, bias, *kept), gradient)
        else:
            max_distance = table.shape[1] // 2
            gradients = materialized.backward(query, key, value, bias, gradient, max_distance, *kept)
        return *gradients, None, None
