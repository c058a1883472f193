"""The relative position bias at slots: shared with text, or zero for every pair that touches a slot.

T5 hands extra arguments of its encoder down to its attention function, so the switch needs no subclass of T5
and leaves its weights interchangeable: the encoder's config names this function, and a forward pass gives it
`slots`.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, T5ForConditionalGeneration
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "kebyt5_xm_zero_slot_bias"


def zero_bias_at_slots(backbone: T5ForConditionalGeneration) -> None:
    """Make the encoder of `backbone` ignore distance wherever a slot is involved."""
    backbone.encoder.config._attn_implementation = NAME


def attention(
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
    """T5's unscaled attention [B, H, S, d], with the bias [1, H, S, S] zero where `slots` [B, S] is involved."""
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


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
