"""Attention by torch's `scaled_dot_product_attention`: no mask where rows are full, otherwise by spans.

Letters in shapes: B rows, H heads, T queries, S keys, L positions, d width of a head, M the bias table's largest
distance.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from kebyt5_xm.model.attention.biased import BiasedAttention
from kebyt5_xm.model.attention.pattern import Pattern, spread
from kebyt5_xm.model.attention.span_groups import SpanGroups, group_spans

_biases: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The table of a stack -> its bias pair by pair and without a gradient; gone with the table, after the step."""


def attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, pattern: Pattern, dropout: float = 0.0
) -> Tensor:
    """Return what `reference.attention` returns.

    `bias` is the table [H, 2M + 1], or `spread_bias` of it, which layers share, or the bias [B, H, L, L] of positions
    of which each row's segment is at its beginning. `dropout` is the rate of the weights.
    """
    queries, keys = query.shape[2], key.shape[2]
    if pattern.query_segments is None and pattern.key_segments is None:
        return _attend(query, key, value, bias, pattern, dropout)
    groups = group_spans(pattern, len(query), queries, keys, query.device)
    if groups is None:
        return _attend_masked(query, key, value, bias, pattern, dropout)
    return _attend_spans(query, key, value, bias, pattern, dropout, groups)


def spread_bias(table: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Return the bias of every pair of L positions, [1, H, L, L], with a gradient."""
    return spread(table.to(dtype), length, length).contiguous()


def _attend_spans(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    pattern: Pattern,
    dropout: float,
    groups: SpanGroups,
) -> Tensor:
    """Return [B, H, T, d], computed for all spans of a size together: zero outside of all."""
    outputs = []
    for spans, parts in zip(groups.groups, groups.split(query, key, value, pattern), strict=True):
        queries, keys, values, within = parts
        length, narrowed = queries.shape[2], bias
        if bias is not None and bias.ndim == 4:
            narrowed = bias[:, :, :length, :length]
            if len(bias) > 1:  # of each row its own
                narrowed = torch.stack([narrowed[span.row] for span in spans])
        outputs.append(_attend(queries, keys, values, narrowed, within, dropout))
    return groups.join(outputs, len(query))


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, pattern: Pattern, dropout: float
) -> Tensor:
    """Return [B, H, T, d] for a pattern without segments."""
    is_plain = pattern.query_positions is None and pattern.query_slots is None and pattern.key_scores is None
    if bias is None and is_plain:
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=pattern.causal, scale=1.0
        )
    if is_plain and bias is not None and bias.ndim == 2 and query.device.type == "cpu":
        constant = _shared_bias(bias, query.shape[2], query.dtype, pattern.causal)
        trains = bias.requires_grad and torch.is_grad_enabled()
        if trains and not dropout and query.dtype in (torch.float32, torch.float64):
            return BiasedAttention.apply(query, key, value, bias.to(query.dtype), constant, pattern.causal)
        if not trains:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=constant, dropout_p=dropout, scale=1.0
            )
    return _attend_masked(query, key, value, bias, pattern, dropout)


def _shared_bias(table: Tensor, length: int, dtype: torch.dtype, causal: bool) -> Tensor:
    """Return the bias [1, H, L, L] of `table` without a gradient, -inf above the diagonal if `causal`."""
    key = dtype, causal
    known = _biases.setdefault(table, {})
    assert known is not None
    if key not in known or known[key].shape[2] < length:
        known[key] = spread_bias(table.detach(), length, dtype)
        if causal:
            known[key].masked_fill_(~torch.ones(length, length, dtype=torch.bool).tril(), -math.inf)
    return known[key][:, :, :length, :length]


def _attend_masked(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, pattern: Pattern, dropout: float
) -> Tensor:
    """Return [B, H, T, d] with every bias and mask materialised."""
    queries, keys = query.shape[2], key.shape[2]
    mask = pattern.bias(bias, queries, keys)
    visible = pattern.visible(queries, keys, query.device)
    if visible is None:
        mask = None if mask is None else mask.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=1.0)
    # For the kernel, a query that sees nothing sees all keys; its output is cleared.
    empty = ~visible.any(-1, keepdim=True)
    visible = visible | empty
    mask = visible if mask is None else mask.to(query.dtype).masked_fill(~visible, -math.inf)
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=1.0)
    return output.masked_fill(empty, 0.0)
