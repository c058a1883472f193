"""Attention of the backbone beyond plain T5: packed rows, and the relative position bias at slots.

The bias is shared with text, or zero for every pair that touches a slot. T5 passes extra arguments of its encoder on
to the attention function, so this needs no subclass of T5 and its weights stay interchangeable: the encoder's config
names `attend_without_slot_bias`, and a forward pass gives it `slots`.

Letters in shapes: B rows, H heads, S encoder positions, T decoder positions, d width of a head.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, T5ForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.errors import UserError

NAME = "kebyt5_xm_zero_slot_bias"


def decode_packed(
    backbone: T5ForConditionalGeneration, states: Tensor, decoder_input_ids: Tensor, packing: Packing
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
    """Raise `UserError` for an attention that would let examples of one packed row see each other."""
    if implementation == "eager":  # it adds a boolean mask to the scores instead of masking with it
        raise UserError(
            "packing needs masks that eager attention does not apply; set model.backbone.attention: sdpa"
        )


def zero_bias_at_slots(backbone: T5ForConditionalGeneration) -> None:
    """Make the encoder of `backbone` ignore distance wherever a slot is involved."""
    backbone.encoder.config._attn_implementation = NAME


def attend_without_slot_bias(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    slots: Tensor | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Return T5's unscaled attention [B, S, H, d], the bias [1, H, S, S] zero where `slots` [B, S] is involved."""
    assert position_bias is not None
    bias = position_bias
    if slots is not None:
        bias = bias.masked_fill((slots[:, :, None] | slots[:, None, :])[:, None], 0.0)  # [B, H, S, S]
    if attention_mask is not None:
        if attention_mask.dtype == torch.bool:
            bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
        else:
            bias = bias + attention_mask
    output = nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout, scale=1.0
    )
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, attend_without_slot_bias)
AttentionMaskInterface.register(NAME, sdpa_mask)
