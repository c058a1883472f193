"""How probable a model finds given answers: one pass of the decoder, whatever search wrote them.

Letters in shapes: R encoder rows, B = R x copies answers side by side, T ids, S encoder positions, D the model's
width.
"""

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import PAD_ID

MAX_IDS = 2048
"""Ids of all rows in one pass; they bound its memory."""


@torch.no_grad()
def score_ids(
    model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, ids: Tensor, copies: int
) -> Tensor:
    """Return the log-probability [B, T] of every id, in nats, given those before it.

    It is the model's own: temperature, top-k and the rule of UTF-8 do not enter. `states` [R, S, D] are the
    encoder's, `attention_mask` [R, S] marks the valid ones, `ids` [B, T] have no start id.
    """
    decoder = open_decoder(model, states, attention_mask, copies)
    shifted = torch.cat(
        [torch.full_like(ids[:, :1], PAD_ID), ids[:, :-1]], dim=1
    )  # T5 starts with the pad id
    size = max(1, MAX_IDS // max(1, len(ids)))
    parts = [
        decoder.step(before).float().log_softmax(-1).gather(-1, after[..., None])[..., 0]
        for before, after in zip(shifted.split(size, 1), ids.split(size, 1), strict=True)
    ]
    return torch.cat(parts, dim=1)
