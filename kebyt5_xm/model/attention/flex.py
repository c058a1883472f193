"""T5's attention through torch's FlexAttention: compiled to a kernel for CUDA, materialised on the CPU.

The bias is read from the table by distance inside the kernel, and blocks of 128 x 128 that a pattern hides wholly are
not computed. On CUDA the gradient of the table is added up in no fixed order, so runs differ by rounding. The CPU has
no gradients (torch 2.11).

Letters in shapes: B rows, H heads, T queries, S keys, d width of a head, M the bias table's largest distance.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.attention.pattern import Pattern

if TYPE_CHECKING:  # importing it takes as long as torch._dynamo
    from torch.nn.attention.flex_attention import BlockMask

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MIN_CUDA_WIDTH, MAX_WIDTH = 16, 256
"""Of torch 2.11's kernel."""

_block_masks: "WeakKeyDictionary[Pattern, dict[tuple[int, int], BlockMask]]" = WeakKeyDictionary()


NO_GRADIENTS = "FlexAttention found the CPU, where it has no gradients; use sdpa, which has them"


def check(device: torch.device, dtype: torch.dtype, head_width: int, trains: bool = False) -> None:
    """Raise `UserError` if this attention cannot run, or cannot train although it `trains`."""
    remedy = "; use sdpa, which can"
    if trains and device.type == "cpu":
        raise UserError(NO_GRADIENTS)
    if device.type not in ("cuda", "cpu"):
        raise UserError(f"FlexAttention found device {device.type}, needs cuda{remedy}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"FlexAttention found no CUDA device{remedy}")
    if dtype not in DTYPES:
        raise UserError(f"FlexAttention found {dtype}, expected float32, bfloat16 or float16{remedy}")
    least = MIN_CUDA_WIDTH if device.type == "cuda" else 1
    if not least <= head_width <= MAX_WIDTH:
        raise UserError(
            f"FlexAttention found heads of width {head_width}, expected {least} to {MAX_WIDTH}{remedy}"
        )


def attention(query: Tensor, key: Tensor, value: Tensor, table: Tensor | None, pattern: Pattern) -> Tensor:
    """Return what `reference.attention` does: [B, H, T, d] for queries [B, H, T, d], keys and values [B, H, S, d].

    Raises `UserError` as `check` does, and for gradients on the CPU.
    """
    from torch.nn.attention.flex_attention import flex_attention

    mask = _block_mask(pattern, query, key)
    score_mod = _score_mod(table, pattern)
    if torch.compiler.is_compiling():
        return _tensor(flex_attention(query, key, value, score_mod, mask, scale=1.0))
    check(query.device, query.dtype, query.shape[3])
    if query.is_cuda:
        return _tensor(_compiled()(query, key, value, score_mod, mask, scale=1.0))
    if torch.is_grad_enabled():
        _refuse_gradients(query, key, value, table, pattern.key_scores)
    else:  # torch refuses tensors that could have gradients
        query, key, value = query.detach(), key.detach(), value.detach()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return _tensor(flex_attention(query, key, value, score_mod, mask, scale=1.0))


def _refuse_gradients(*tensors: Tensor | None) -> None:
    if any(tensor is not None and tensor.requires_grad for tensor in tensors):
        raise UserError(NO_GRADIENTS)


@cache
def _compiled() -> Callable[..., object]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _tensor(output: object) -> Tensor:
    assert isinstance(output, Tensor)
    return output


def _block_mask(pattern: Pattern, query: Tensor, key: Tensor) -> "BlockMask | None":
    """Return which blocks the pattern shows, None if all; remembered as long as the pattern lives."""
    mask_mod = _mask_mod(pattern)
    if mask_mod is None:
        return None
    from torch.nn.attention.flex_attention import create_block_mask

    lengths = query.shape[2], key.shape[2]
    known = {} if torch.compiler.is_compiling() else _block_masks.setdefault(pattern, {})
    if lengths not in known:
        one_for_all = pattern.query_segments is None and pattern.key_segments is None
        rows = 1 if one_for_all else len(query)
        known[lengths] = create_block_mask(mask_mod, rows, None, *lengths, device=query.device)
    return known[lengths]


def _mask_mod(pattern: Pattern) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """Return `visible(row, head, query, key)` for numbers of places; None if everything is visible."""
    queries, keys, causal = pattern.query_segments, pattern.key_segments, pattern.causal
    if queries is None and keys is None:
        return _is_earlier if causal else None

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if keys is None:
            assert queries is not None
            seen = queries[row, query] == 1
        else:
            seen = (keys[row, key] == (1 if queries is None else queries[row, query])) & (keys[row, key] != 0)
        return seen & (key <= query) if causal else seen

    return visible


def _is_earlier(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return key <= query


def _score_mod(
    table: Tensor | None, pattern: Pattern
) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] | None:
    """Return `score(product, row, head, query, key)` with the biases added; None if there are none."""
    scores = pattern.key_scores
    query_positions, key_positions = pattern.query_positions, pattern.key_positions
    query_slots, key_slots = pattern.query_slots, pattern.key_slots
    if table is None and scores is None:
        return None
    max_distance = 0 if table is None else table.shape[1] // 2

    def score(product: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if table is not None:
            distance = key - query
            if query_positions is not None and key_positions is not None:
                distance = key_positions[row, key] - query_positions[row, query]
            bias = table[head, distance.clamp(-max_distance, max_distance) + max_distance]
            if query_slots is not None and key_slots is not None:
                bias = torch.where(query_slots[row, query] | key_slots[row, key], 0.0, bias)
            product = product + bias
        return product if scores is None else product + scores[row, key]

    return score
