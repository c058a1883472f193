"""Where the decoder looks: its attention to the encoder's positions, for answers that are written already.

Letters in shapes: B answers, L layers and H heads of the decoder, T ids, S encoder positions, D the model's width.
"""

from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.int8 import Int8Decoder
from kebyt5_xm.model.network import CrossModalNetwork


@torch.no_grad()
def cross_attention(
    model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, ids: Tensor
) -> Tensor:
    """Return the weights [B, L, H, T, S], fp32, with which each id was written; they add up to 1 over S.

    It is one pass of the decoder, whatever search wrote the ids. `states` [B, S, D] are the encoder's,
    `attention_mask` [B, S] marks the valid ones, `ids` [B, T] have no start id. Raises `UserError` for a decoder in
    int8, whose layers are one compiled product each.
    """
    decoder = model.backbone.decoder
    if isinstance(decoder, Int8Decoder):
        raise UserError(
            "found a model in int8, expected fp32 or bf16: an int8 decoder does not tell where it looks"
        )
    weights: list[Tensor] = []

    def record(attention: Any, inputs: tuple[Tensor, ...]) -> None:
        weights.append(_weights(attention, inputs[0], states, attention_mask))

    handles = [block.layer[1].EncDecAttention.register_forward_pre_hook(record) for block in decoder.block]  # pyright: ignore
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
    return torch.stack(weights, dim=1)


def _weights(attention: Any, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights [B, H, T, S] of one layer for its normed input [B, T, D]; T5 does not scale the products."""
    queries, keys = (
        projection(vectors).unflatten(-1, (attention.n_heads, -1)).transpose(1, 2).float()
        for projection, vectors in ((attention.q, hidden), (attention.k, states))
    )
    products = queries @ keys.transpose(-1, -2)
    if mask is not None:
        products = products.masked_fill(~mask.bool()[:, None, None], float("-inf"))
    return products.softmax(-1)
