"""Packing: several examples in one row, each of which sees itself alone.

Encoder self-attention, decoder self-attention and cross-attention all get a mask of their own, and decoder inputs
are shifted example by example. T5's relative bias needs nothing: it depends on distance alone. So a packed row
computes what its examples would compute in rows of their own, to floating-point tolerance.

Shape suffixes: B rows, S encoder positions, T decoder positions. Segment 0 is padding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import PAD_ID

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclass
class Packing:
    """Which example of its row every position belongs to, counted from 1; 0 is padding."""

    segments: Tensor  # [B, S]
    target_segments: Tensor  # [B, T]

    def map(self, function: Callable[[Tensor], Tensor]) -> "Packing":
        """Return it with `function` applied to both tensors."""
        return Packing(function(self.segments), function(self.target_segments))

    def encoder_mask(self) -> Tensor:
        """Return [B, 1, S, S] bool: query and key are of one example. Padding sees padding, so no row is empty."""
        return (self.segments[:, :, None] == self.segments[:, None, :])[:, None]

    def decoder_mask(self) -> Tensor:
        """Return [B, 1, T, T] bool: of one example, and the key is not later."""
        segments = self.target_segments
        causal = torch.ones(
            segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
        ).tril()
        return ((segments[:, :, None] == segments[:, None, :]) & causal)[:, None]

    def cross_mask(self) -> Tensor:
        """Return [B, 1, T, S] bool: of one example. Padding, which has no loss, sees everything."""
        targets = self.target_segments[:, :, None]
        return ((targets == self.segments[:, None, :]) | (targets == 0))[:, None]

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T]: the start id, which is PAD, before each example's first label."""
        shifted = torch.full_like(labels, PAD_ID)
        same = self.target_segments[:, 1:] == self.target_segments[:, :-1]
        shifted[:, 1:] = labels[:, :-1].masked_fill(~same | (labels[:, :-1] < 0), PAD_ID)
        return shifted


def decode(
    backbone: "T5ForConditionalGeneration", states: Tensor, decoder_input_ids: Tensor, packing: Packing
) -> Tensor:
    """Return the logits [B, T, V] for the encoder's `states` [B, S, D] of packed rows."""
    output = backbone.decoder(
        input_ids=decoder_input_ids,
        attention_mask=packing.decoder_mask(),
        encoder_hidden_states=states,
        encoder_attention_mask=packing.cross_mask(),
        use_cache=False,
    )
    return backbone.lm_head(output.last_hidden_state)


def check_attention(implementation: str | None) -> None:
    """Raise `UserError` for an attention that would let examples of one row see each other."""
    if implementation == "eager":  # it adds a boolean mask to the scores instead of hiding by it
        raise UserError(
            "packing needs masks that eager attention does not apply; set model.backbone.attention: sdpa"
        )
