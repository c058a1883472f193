"""T5's attention in Triton: scores exist only as tiles, and tiles that a pattern hides wholly are not computed.

A tile of queries and keys that are at least M apart takes one number of the bias table, a nearer one reads it by
distance. Products are in the dtype of the queries with fp32 sums; softmax, bias and sums over tiles are in fp32.
Results and gradients are deterministic: equal inputs give equal bits on one kind of device.

The kernels are imported when they are first called, because Triton is missing in wheels of torch for the CPU. With
TRITON_INTERPRET=1 they run on the CPU, for tests.

Letters in shapes: B rows, H heads, T queries, S keys, d width of a head, M the bias table's largest distance.
"""

import importlib.util
import os

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.attention.pattern import Pattern
from kebyt5_xm.model.attention.triton_operators import triton_attention

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MAX_WIDTH = 128
MIN_CAPABILITY = (8, 0)
"""Ampere, the first with bf16."""


def check(device: torch.device, dtype: torch.dtype, head_width: int) -> None:
    """Raise `UserError` if this attention cannot run."""
    remedy = "; use sdpa, which can"
    if importlib.util.find_spec("triton") is None:
        raise UserError(f"found no Triton, which attention in Triton needs{remedy}")
    if device.type != "cuda" and os.getenv("TRITON_INTERPRET") != "1":
        raise UserError(f"attention in Triton found device {device.type}, needs cuda{remedy}")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"attention in Triton found no CUDA device{remedy}")
        capability = torch.cuda.get_device_capability(device)
        if capability < MIN_CAPABILITY:
            found, least = (".".join(map(str, version)) for version in (capability, MIN_CAPABILITY))
            raise UserError(
                f"attention in Triton found compute capability {found}, needs at least {least}{remedy}"
            )
    if dtype not in DTYPES:
        raise UserError(f"attention in Triton found {dtype}, expected float32, bfloat16 or float16{remedy}")
    if head_width > MAX_WIDTH:
        raise UserError(
            f"attention in Triton found heads of width {head_width}, expected at most {MAX_WIDTH}{remedy}"
        )


def attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, pattern: Pattern) -> Tensor:
    """Return what `reference.attention` does: [B, H, T, d] for queries [B, H, T, d], keys and values [B, H, S, d].

    Memory is that of [B, T, H, d]: heads can be joined without a copy. Integers of the pattern are best given as
    int32. Raises `UserError` as `check` does.
    """
    if not torch.compiler.is_compiling():
        check(query.device, query.dtype, query.shape[3])
    query_segments, key_segments = pattern.query_segments, pattern.key_segments
    if key_segments is None and query_segments is not None:
        key_segments = query_segments.new_ones(len(key), key.shape[2])
    if query_segments is None and key_segments is not None:
        query_segments = key_segments.new_ones(len(query), query.shape[2])
    output, _ = triton_attention(
        query,
        key,
        value,
        None if table is None else table.float(),
        _int32(query_segments),
        _int32(key_segments),
        _int32(pattern.query_positions),
        _int32(pattern.key_positions),
        _bytes(pattern.query_slots),
        _bytes(pattern.key_slots),
        None if pattern.key_scores is None else pattern.key_scores.float(),
        pattern.causal,
    )
    return output


def _int32(numbers: Tensor | None) -> Tensor | None:
    return None if numbers is None else numbers.int().contiguous()


def _bytes(flags: Tensor | None) -> Tensor | None:
    return None if flags is None else flags.contiguous().view(torch.uint8)
