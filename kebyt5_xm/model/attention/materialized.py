"""Attention with a trained bias whose weights are materialised, a few rows at a time.

Letters in shapes: B rows, H heads, L positions, d width of a head, M the table's largest distance, n rows at a time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from kebyt5_xm.model.attention.saved import Gradients, fold

NUM_AT_A_TIME = 1 << 20
"""Weights that are computed at a time: 4 MB in fp32, which stay in a core's caches."""


def forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, L, d] and the weights [B, H, L, L]. `bias` is [1, H, L, L]."""
    num_rows, heads, length, _ = query.shape
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    weights = query.new_empty(num_rows, heads, length, length)
    output = torch.empty_like(value)
    for rows in _rows_at_a_time(weights.shape):
        _weigh(query[rows], key[rows], bias, weights[rows])
        _multiply(weights[rows], value[rows], output[rows])
    return output, weights


def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    gradient: Tensor,
    max_distance: int,
    weights: Tensor | None = None,
) -> Gradients:
    """Return the gradients for that of the output, `gradient` [B, H, L, d]. Without `weights` they are recomputed."""
    query, key, value, gradient = (t.contiguous() for t in (query, key, value, gradient))
    d_query, d_key, d_value = (torch.empty_like(t) for t in (query, key, value))
    total = torch.zeros_like(bias[0])
    parts = [*_rows_at_a_time(torch.Size((len(query), *bias.shape[1:])))]
    buffers = gradient.new_empty(2, parts[0].stop, *bias.shape[1:])
    for rows in parts:
        part, d_scores = buffers[:, : rows.stop - rows.start]
        if weights is None:
            _weigh(query[rows], key[rows], bias, part)
        else:
            part = weights[rows]
        _multiply(part.transpose(2, 3), gradient[rows], d_value[rows])
        _multiply(gradient[rows], value[rows].transpose(2, 3), d_scores)
        torch.ops.aten._softmax_backward_data.out(d_scores, part, -1, part.dtype, grad_input=d_scores)
        total += d_scores.sum(0)
        _multiply(d_scores, key[rows], d_query[rows])
        _multiply(d_scores.transpose(2, 3), query[rows], d_key[rows])
    return Gradients(d_query, d_key, d_value, fold(total, 0, max_distance))


def _weigh(query: Tensor, key: Tensor, bias: Tensor, out: Tensor) -> None:
    """Write the weights of n rows, [n, H, L, L]."""
    _multiply(query, key.transpose(2, 3), out)
    out.add_(bias)
    torch.softmax(out, dim=-1, out=out)


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Write the product of matrices [n, H, ., .] without the copies that `matmul` makes of four dimensions."""
    torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out=out.flatten(0, 1))


def _rows_at_a_time(shape: torch.Size) -> Iterator[slice]:
    """Yield the rows of weights [B, H, L, L] in parts; the first is the largest."""
    num_rows = shape[0]
    size = min(num_rows, max(1, NUM_AT_A_TIME // shape[1:].numel()))
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))
