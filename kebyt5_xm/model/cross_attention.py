"""Where the decoder looks: its attention to the encoder's positions, for answers that are written already.

Letters in shapes: B answers, L layers and H heads of the decoder, T ids, S encoder positions, D the model's width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.decoding.int8 import Int8Decoder
from kebyt5_xm.model.network import CrossModalNetwork

IDS_AT_ONCE = 64
"""Ids of whose weights a mean is taken at once; they bound its memory. Our own choice."""


def has_cross_attention(model: CrossModalNetwork) -> bool:
    """Return whether a model tells where it looks: an int8 decoder does not."""
    return not isinstance(model.backbone.decoder, Int8Decoder)


@torch.no_grad()
def cross_attention(
    model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, ids: Tensor
) -> Tensor:
    """Return the weights [B, L, H, T, S], fp32, with which each id was written; they add up to 1 over S.

    It is one pass of the decoder, whatever search wrote the ids. `states` [B, S, D] are the encoder's,
    `attention_mask` [B, S] is their mask (`kebyt5_xm.model.encoder_mask`), `ids` [B, T] have no start id. Raises
    `UserError` for a decoder in int8, whose layers are one compiled product each.
    """
    weights: list[Tensor] = []

    def record(attention: Any, hidden: Tensor) -> None:
        weights.append(_weights(attention, hidden, states, attention_mask))

    _observe(model, states, attention_mask, ids, record)
    return torch.stack(weights, dim=1)


@torch.no_grad()
def mean_cross_attention(
    model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, ids: Tensor
) -> Tensor:
    """Return the mean [B, T, S] of `cross_attention` over layers and heads, of which few are held at a time."""
    blocks: Any = model.backbone.decoder.block
    mean = torch.zeros(*ids.shape, states.shape[1], device=states.device)

    def add(attention: Any, hidden: Tensor) -> None:
        for part, into in zip(hidden.split(IDS_AT_ONCE, 1), mean.split(IDS_AT_ONCE, 1), strict=True):
            into += _weights(attention, part, states, attention_mask).mean(1) / len(blocks)

    _observe(model, states, attention_mask, ids, add)
    return mean


def _observe(
    model: CrossModalNetwork,
    states: Tensor,
    attention_mask: Tensor | None,
    ids: Tensor,
    see: Callable[[Any, Tensor], None],
) -> None:
    """Run the decoder on the ids; `see` takes each layer's cross-attention and its normed input [B, T, D]."""
    if not has_cross_attention(model):
        raise UserError(
            "found a model in int8, expected fp32 or bf16: an int8 decoder does not tell where it looks"
        )
    blocks: Any = model.backbone.decoder.block
    handles = [
        block.layer[1].EncDecAttention.register_forward_pre_hook(
            lambda module, inputs: see(module, inputs[0])
        )
        for block in blocks
    ]
    try:
        model(
            encoder_outputs=(states,),
            attention_mask=attention_mask,
            decoder_input_ids=model.shift_right(ids),
            use_cache=False,
        )
    finally:
        for handle in handles:
            handle.remove()


def _weights(attention: Any, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights [B, H, T, S] of one layer for its normed input [B, T, D]; T5 does not scale the products."""
    queries, keys = (
        projection(vectors).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2).float()
        for projection, vectors in ((attention.q, hidden), (attention.k, states))
    )
    products = queries @ keys.transpose(-1, -2)
    if mask is not None:
        products = products + encoder_mask.additive(mask, products.dtype)
    return products.softmax(-1)
