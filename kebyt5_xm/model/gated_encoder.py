"""Runs the encoder of a T5 with a delete gate after one of its layers.

Letters in shapes: B rows, S encoder positions, K kept positions, D the model's width.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.attention.choice import Implementation
from kebyt5_xm.model.attention.interface import Patterns, implementation, refuse_eager
from kebyt5_xm.model.attention.pattern import Pattern
from kebyt5_xm.model.attention.teacher_forcing import Extents, encoder_patterns
from kebyt5_xm.model.delete_gate import DeleteGateModule, GatedStates, Shortened, decide, scores


def make_gate(backbone: T5ForConditionalGeneration, layer: int) -> DeleteGateModule:
    """Return a new gate after `layer` encoder layers of a backbone. Raises `UserError` for eager attention."""
    refuse_eager(backbone, "delete_gate")
    return DeleteGateModule(layer, backbone.config.d_model, device=backbone.device)


def encode_gated(
    backbone: T5ForConditionalGeneration,
    gate: DeleteGateModule,
    embedded: Tensor,
    mask: Tensor | None,
    slots: Tensor | None,
    extents: Extents,
) -> GatedStates:
    """Return the encoder's states for embeddings [B, S, D].

    `mask` [B, S] marks valid positions, None for all; at `slots` [B, S] there is no relative bias, None for none.
    Deletion is soft where a gate in training mode has a gradient and is not `is_hard`.
    """
    encoder: Any = backbone.encoder
    blocks = list(encoder.block)
    patterns = encoder_patterns(mask, None, slots, extents)
    hidden, bias = encoder.dropout(embedded), None
    for block in blocks[: gate.layer]:
        hidden, bias, _ = block(hidden, None, bias, patterns=patterns)
    assert bias is not None
    # Detached: the layers before the gate learn faster than it does, and would open and close it as well.
    kept, closed = decide(gate(hidden.detach()), mask)
    if gate.training and torch.is_grad_enabled() and not gate.is_hard:
        positions, found = None, scores(closed, mask)
        patterns = encoder_patterns(mask, None, slots, extents, encoder_mask.split(found)[1])
    else:
        short = Shortened.of(kept)
        hidden, positions = short.take(hidden), short.positions
        found = scores(short.take(closed), short.valid)
        slots = None if slots is None else short.take(slots)
        patterns = encoder_patterns(short.valid, None, slots, None, encoder_mask.split(found)[1])
        patterns, bias = _placed(implementation(encoder), patterns, bias, positions, hidden)
    for block in blocks[gate.layer :]:
        hidden, bias, _ = block(hidden, None, bias, patterns=patterns)
    hidden = encoder.dropout(encoder.final_layer_norm(hidden))
    return GatedStates(hidden, mask=found, positions=positions, gate=closed)  # pyright: ignore[reportArgumentType]


def _placed(
    name: Implementation, patterns: Patterns, bias: Tensor, positions: Tensor, hidden: Tensor
) -> tuple[Patterns, Tensor]:
    """Return the patterns and the relative bias of states [B, K, D] at `positions` [B, K] of the input.

    `bias` is what the first block has handed on: the table, or of consecutive positions that of every pair,
    [1, H, S, S]. (The block's own weights may be sharded again.) For `sdpa` the result is the bias of every pair,
    [B, H, K, K], which the layers share; for the others it is the table.
    """
    if name != "sdpa":
        return Patterns(replace(patterns.own, query_positions=positions, key_positions=positions)), bias
    if bias.ndim == 4:
        return patterns, bias[0][:, positions[:, :, None], positions[:, None, :]].transpose(0, 1)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    places = Pattern(query_positions=positions, key_positions=positions)
    placed = places.bias(bias.to(dtype), hidden.shape[1], hidden.shape[1])
    assert placed is not None
    return patterns, placed
