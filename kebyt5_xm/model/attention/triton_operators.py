"""Attention in Triton as operators of torch: the launches of the kernels, their shapes, and their gradients.

Letters in shapes: B rows, H heads, T queries, S keys, d width of a head, M the bias table's largest distance.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kebyt5_xm.model.attention.triton_table_gradient import make_shares


@dataclass(frozen=True)
class Blocks:
    """Sizes of a kernel's tiles, warps of a program, and depth of its software pipeline."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def blocks(kernel: Literal["forward", "queries", "keys"], dtype: torch.dtype, width: int) -> Blocks:
    """Return the sizes for a kernel and heads of `width`, so that next to nothing is in local memory on Hopper."""
    if dtype == torch.float32:  # without tensor cores
        return Blocks(32, 32, num_warps=8, num_stages=2)
    return {
        "forward": Blocks(128, 64, num_warps=8, num_stages=3),
        "queries": Blocks(128, 64, num_warps=8, num_stages=2),
        "keys": Blocks(64 if width <= 64 else 32, 128, num_warps=8, num_stages=2),
    }[kernel]


@torch.library.custom_op("kebyt5_xm::triton_attention", mutates_args=())
def triton_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    query_segments: Tensor | None,
    key_segments: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    query_slots: Tensor | None,
    key_slots: Tensor | None,
    key_scores: Tensor | None,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """Return the output, and the logarithms [B, H, T] of the sums of exponentials of the scores, in fp32."""
    from kebyt5_xm.model.attention.triton_forward import forward_kernel

    query, key, value = (_rows(tensor) for tensor in (query, key, value))
    size = blocks("forward", query.dtype, query.shape[3])
    output, log_sums = _empty_outputs(query)
    _launch(
        forward_kernel,
        _tiles(query, size.queries),
        size,
        query,
        key,
        value,
        _contiguous(table),
        query_segments,
        key_segments,
        query_positions,
        key_positions,
        query_slots,
        key_slots,
        _contiguous(key_scores),
        output,
        log_sums,
        *(tensor.stride()[:3] for tensor in (query, key, value, output)),
        *_sizes(query, key, table),
        ALL_KEYS=key.shape[2] % size.keys == 0,
        CAUSAL=causal,
    )
    return output, log_sums


@triton_attention.register_fake
def _(query: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return _empty_outputs(query)


@torch.library.custom_op("kebyt5_xm::triton_attention_backward", mutates_args=())
def triton_attention_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    query_segments: Tensor | None,
    key_segments: Tensor | None,
    query_positions: Tensor | None,
    key_positions: Tensor | None,
    query_slots: Tensor | None,
    key_slots: Tensor | None,
    key_scores: Tensor | None,
    output: Tensor,
    log_sums: Tensor,
    causal: bool,
    needs_table: bool,
    needs_scores: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value, table and key scores; empty for the last two where not needed."""
    from kebyt5_xm.model.attention.triton_key_gradient import key_kernel
    from kebyt5_xm.model.attention.triton_query_gradient import query_kernel

    query, key, value, grad_output = (_rows(tensor) for tensor in (query, key, value, grad_output))
    table, key_scores = _contiguous(table), _contiguous(key_scores)
    rules = (query_segments, key_segments, query_positions, key_positions, query_slots, key_slots, key_scores)
    sizes = _sizes(query, key, table)
    grad_query, grad_key, grad_value = (_empty_rows(tensor) for tensor in (query, key, value))
    delta = torch.empty_like(log_sums)

    size = blocks("queries", query.dtype, query.shape[3])
    grid = _tiles(query, size.queries)
    shares = None
    if needs_table:
        shares = make_shares(
            grid, size.queries, size.keys, sizes[3], grad_output, None if query_positions is None else value
        )
    tensors = (grad_output, grad_query)
    _launch(
        query_kernel,
        grid,
        size,
        query,
        key,
        value,
        table,
        *rules,
        output,
        log_sums,
        *tensors,
        delta,
        *((None, None, None) if shares is None else (shares.ends, shares.lines, shares.unit)),
        *(tensor.stride()[:3] for tensor in (query, key, value, output, *tensors)),
        *sizes,
        0 if shares is None else shares.lines.shape[-1],
        ALL_KEYS=key.shape[2] % size.keys == 0,
        CAUSAL=causal,
    )

    size = blocks("keys", query.dtype, query.shape[3])
    grid = _tiles(key, size.keys)
    grad_scores = delta.new_empty(len(key), key.shape[1], key.shape[2]) if needs_scores else None
    _launch(
        key_kernel,
        grid,
        size,
        query,
        key,
        value,
        table,
        *rules,
        log_sums,
        grad_output,
        delta,
        grad_key,
        grad_value,
        grad_scores,
        *(tensor.stride()[:3] for tensor in (query, key, value, grad_output, grad_key, grad_value)),
        *sizes,
        ALL_QUERIES=query.shape[2] % size.queries == 0,
        CAUSAL=causal,
    )
    return (
        grad_query,
        grad_key,
        grad_value,
        delta.new_empty(0) if shares is None else shares.add_up(),
        delta.new_empty(0) if grad_scores is None else grad_scores.sum(1),
    )


@triton_attention_backward.register_fake
def _(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor | None,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    needs_table, needs_scores = others[-2:]
    log_sums = others[-4]
    shape = table.shape if needs_table and table is not None else (0,)
    scores = (len(key), key.shape[2]) if needs_scores else (0,)
    return (
        _empty_rows(query),
        _empty_rows(key),
        _empty_rows(value),
        log_sums.new_empty(shape),
        log_sums.new_empty(scores),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.causal = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad_output: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad_output is None:
        return (None,) * 12
    needs_table, needs_scores = ctx.needs_input_grad[3], ctx.needs_input_grad[10]
    *gradients, table, scores = triton_attention_backward(
        grad_output, *ctx.saved_tensors, ctx.causal, needs_table, needs_scores
    )
    return (
        *gradients,
        table if needs_table else None,
        *(None,) * 6,
        scores if needs_scores else None,
        None,
    )


triton_attention.register_autograd(_differentiate, setup_context=_keep)


def _launch(
    kernel: Any, grid: tuple[int, int, int], size: Blocks, query: Tensor, *args: Any, **flags: bool
) -> None:
    width = query.shape[3]
    with torch.cuda.device(query.device) if query.is_cuda else nullcontext():
        kernel[grid](
            query,
            *args,
            WIDTH=width,
            BLOCK_WIDTH=max(16, 1 << (width - 1).bit_length()),
            BLOCK_Q=size.queries,
            BLOCK_K=size.keys,
            PRECISION="ieee",
            num_warps=size.num_warps,
            num_stages=size.num_stages,
            **flags,
        )


def _tiles(tensor: Tensor, block: int) -> tuple[int, int, int]:
    """Return the grid for a tensor [B, H, n, d]: tiles of `block` places, H, B."""
    return -(-tensor.shape[2] // block), tensor.shape[1], tensor.shape[0]


def _sizes(query: Tensor, key: Tensor, table: Tensor | None) -> tuple[int, int, int, int]:
    """Return H, T, S and M (1 without a table)."""
    num_heads = query.shape[1]
    assert table is None or (len(table) == num_heads and table.shape[1] % 2 == 1), table.shape
    return num_heads, query.shape[2], key.shape[2], 1 if table is None else table.shape[1] // 2


def _rows(tensor: Tensor) -> Tensor:
    """Return the tensor with consecutive numbers in its last dimension."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _empty_rows(tensor: Tensor) -> Tensor:
    """Return an empty [B, H, n, d] with memory as [B, n, H, d]."""
    rows, num_heads, length, width = tensor.shape
    return tensor.new_empty(rows, length, num_heads, width).transpose(1, 2)


def _empty_outputs(query: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_rows(query), query.new_empty(query.shape[:3], dtype=torch.float32)
