"""Attention in the plainest way: every score is materialised. In any dtype, on any device; for tests.

Letters in shapes: B rows, H heads, T queries, S keys, d width of a head, M the bias table's largest distance.
"""

import math

from torch import Tensor

from kebyt5_xm.model.attention.pattern import Pattern


def attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, pattern: Pattern) -> Tensor:
    """Return T5's attention [B, H, T, d], unscaled, for queries [B, H, T, d] and keys and values [B, H, S, d].

    `table` [H, 2M + 1] is the relative bias by distance (`pattern.bias_table`), None for none. Gradients reach
    queries, keys, values, `table` and `pattern.key_scores`.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    scores = query @ key.transpose(2, 3)
    bias = pattern.bias(table, num_queries, num_keys)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    visible = pattern.visible(num_queries, num_keys, query.device)
    if visible is None:
        return scores.softmax(-1) @ value
    empty = ~visible.any(-1, keepdim=True)  # [B or 1, 1, T, 1]
    scores = scores.masked_fill(~visible & ~empty, -math.inf)
    return (scores.softmax(-1) @ value).masked_fill(empty, 0.0)
