"""The mask of encoder states that decoders take, [B, S].

Integers and booleans mark the valid states. Floats are scores: they are added to the attention scores of every query,
and are minus infinity at states that no query sees. A delete gate's states have such scores
(`kebyt5_xm.model.delete_gate`).
"""

import math

import torch
from torch import Tensor


def join(valid: Tensor | None, scores: Tensor) -> Tensor:
    """Return the floating mask of `scores` [B, S], minus infinity where `valid` [B, S] is zero."""
    return scores if valid is None else scores.masked_fill(valid == 0, -math.inf)


def split(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Return which states are valid, [B, S], and their finite scores, [B, S]; None for no padding and no scores."""
    if mask is None or not mask.is_floating_point():
        return mask, None
    valid = mask > -math.inf
    return valid, mask.masked_fill(~valid, 0.0)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores, [B, 1, 1, S]: a finite number, the lowest, at hidden states."""
    lowest = torch.finfo(dtype).min
    if mask.is_floating_point():
        scores = mask.to(dtype).clamp(min=lowest)
    else:
        scores = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask == 0, lowest)
    return scores[:, None, None]
