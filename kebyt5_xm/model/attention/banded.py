"""The gradient of the relative bias on the CPU, without materialising the scores of a long row.

It needs the sum of the scores' gradients over all pairs of each distance; beyond the distance M only two sums, over
all keys far to the left and far to the right. So a row is cut into blocks of W >= M positions, and only pairs within
a block or of neighbouring blocks are materialised. For the other pairs torch's fused kernel itself gives the sum over
each block of keys: every key gets an indicator of its block as further features, every query zeros, and the gradient
of a query's zeros is the sum of the gradients of its scores with each block.

Letters in shapes: B rows, H heads, L positions, d width of a head, M the table's largest distance, N blocks of W
positions.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kebyt5_xm.model.attention.saved import Gradients, Saved, fold, fused_backward

BLOCK_MULTIPLE = 32
"""W is a multiple of this, for whole vectors."""
MIN_BLOCKS = 7
"""Rows of fewer blocks are not cut: three blocks would be about half of them."""


def is_long(length: int, max_distance: int) -> bool:
    """Return whether a row of this length is worth cutting."""
    return _num_blocks(length, max_distance) >= MIN_BLOCKS


def backward(saved: Saved, gradient: Tensor) -> Gradients:
    """Return the gradients for that of the output, `gradient` [B, H, L, d]; the row has at least two blocks."""
    num_rows, heads, length, width = saved.query.shape
    blocks = _num_blocks(length, saved.max_distance)
    block = _block_width(saved.max_distance)
    indicators = F.one_hot(torch.arange(length) // block, -(-blocks // 8) * 8).to(gradient.dtype)  # [L, F]
    wider = (0, indicators.shape[1])
    wide = Saved(
        query=F.pad(saved.query, wider),
        key=torch.cat([saved.key, indicators.expand(num_rows, heads, -1, -1)], dim=-1),
        value=F.pad(saved.value, wider),
        table=saved.table,
        bias=saved.bias,
        output=F.pad(saved.output, wider),
        log_sum=saved.log_sum,
    )
    d_query, d_key, d_value = fused_backward(wide, F.pad(gradient, wider))
    d_table = fold(_near(saved, gradient, block, blocks), -block, saved.max_distance)
    far = F.pad(d_query[..., width : width + blocks].sum(0), (0, 0, 0, blocks * block - length))
    far = far.view(heads, blocks, block, blocks).sum(2)  # [H, N of queries, N of keys]
    d_table[:, 0] += far.tril(-2).sum((1, 2))
    d_table[:, -1] += far.triu(2).sum((1, 2))
    return Gradients(d_query[..., :width], d_key[..., :width], d_value[..., :width], d_table)


def _near(saved: Saved, gradient: Tensor, block: int, blocks: int) -> Tensor:
    """Return the summed gradients of the scores of neighbouring blocks, [H, W, 3W]."""
    num_rows, heads, length, width = saved.query.shape
    tail = blocks * block - length
    delta = saved.delta(gradient)
    bias = _near_bias(saved.table, block)
    total = gradient.new_zeros(heads, block, 3 * block)
    weights, d_scores = gradient.new_empty(2, heads, blocks, block, 3 * block)
    for row in range(num_rows):
        queries, gradients = (
            F.pad(t[row], (0, 0, 0, tail)).view(heads, blocks, block, width) for t in (saved.query, gradient)
        )
        keys, values = (
            F.pad(t[row], (0, 0, block, block + tail)).unfold(1, 3 * block, block)
            for t in (saved.key, saved.value)
        )  # [H, N, d, 3W]
        log_sum = F.pad(saved.log_sum[row], (0, tail), value=torch.inf).view(heads, blocks, block, 1)
        torch.matmul(queries, keys, out=weights)
        weights.add_(bias).sub_(log_sum).exp_()
        torch.matmul(gradients, values, out=d_scores)
        d_scores.sub_(F.pad(delta[row], (0, 0, 0, tail)).view(heads, blocks, block, 1)).mul_(weights)
        d_scores[:, 0, :, :block] = 0  # before the first key
        d_scores[:, -1, :, 2 * block - tail :] = 0  # after the last
        d_scores[:, -2, :, 3 * block - tail :] = 0
        total += d_scores.sum(1)
    return total


def _near_bias(table: Tensor, block: int) -> Tensor:
    """Return the bias of W queries and the keys of their block and its neighbours, [H, 1, W, 3W]."""
    max_distance = table.shape[1] // 2
    distance = torch.arange(3 * block) - block - torch.arange(block)[:, None]
    return table[:, distance.clamp(-max_distance, max_distance) + max_distance][:, None]


def _block_width(max_distance: int) -> int:
    return -(-max_distance // BLOCK_MULTIPLE) * BLOCK_MULTIPLE


def _num_blocks(length: int, max_distance: int) -> int:
    return -(-length // _block_width(max_distance))
