"""Classification: the exact probability of every label of a closed list.

A label is written as its bytes and the end of sequence, so no label is a prefix of another, and the probability that
the model writes it is the product over its ids. These products are normalised over the labels to sum to one. All
labels of an example are scored in one decoder row, isolated from each other (`kebyt5_xm.data.inputs.Packing`), so the
encoder's states are read once.

Letters in shapes: B rows, L labels, N decoder positions of all labels, S encoder positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.data.sources.words import check_labels
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, encode

MAX_POSITIONS = 4096
"""Decoder positions that are scored in one row."""
MAX_PAIRS = 1 << 24
"""Pairs of positions in one call of the decoder, over all its rows. Attention holds one number per head for each:
0.8 GB with the twelve heads of `base` in fp32."""


@dataclass
class LabelPacking(Packing):
    """Labels in one decoder row; each attends to itself and to the whole encoder row, not to other labels.

    `segments` [B, S] is 1 at the valid encoder positions, 0 at padding.
    """

    @property
    def cross_segments(self) -> None:
        return None


class LabelScorer:
    """The labels of a classification. Raises `UserError` for fewer than two, an empty one, or one given twice."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = check_labels(labels)
        self._ids = [np.append(encode(label), EOS_ID).astype(np.int64) for label in self.labels]

    def log_probabilities(
        self,
        model: CrossModalNetwork,
        states: Tensor,
        attention_mask: Tensor | None,
        everywhere: Callable[[bool], bool] = bool,
    ) -> Tensor:
        """Return the log-probability [B, L] of every label, normalised over the labels.

        `states` [B, S, D] are the encoder's, `attention_mask` [B, S] marks the valid ones. `everywhere` takes this
        rank's truth value and returns whether it is true on every rank: all ranks call the decoder equally often, as
        sharded weights need it.
        """
        num_rows, num_states = states.shape[:2]
        limit = MAX_POSITIONS
        while limit > 1 and not everywhere(num_rows * limit * max(limit, num_states) <= MAX_PAIRS):
            limit //= 2
        scores = []
        for first, last in self._chunks(limit):
            chunk = self._ids[first:last]
            # A single label of more than `limit` positions gets fewer rows.
            rows = max(1, num_rows * limit**2 // max(limit, sum(map(len, chunk))) ** 2)
            masks = [None] * num_rows if attention_mask is None else attention_mask.split(rows)
            parts = zip(states.split(rows), masks, strict=False)
            scores.append(torch.cat([self._scores(model, part, mask, chunk) for part, mask in parts]))
        return torch.cat(scores, dim=1).log_softmax(dim=1)

    def _chunks(self, limit: int) -> list[tuple[int, int]]:
        """Return runs of labels [first, last) of at most `limit` positions; a longer label is a run of its own."""
        chunks, first, size = [], 0, 0
        for number, ids in enumerate(self._ids):
            if size and size + len(ids) > limit:
                chunks.append((first, number))
                first, size = number, 0
            size += len(ids)
        return [*chunks, (first, len(self._ids))]

    def _scores(
        self, model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, label_ids: list[Any]
    ) -> Tensor:
        device, rows = states.device, len(states)
        labels = torch.from_numpy(np.concatenate(label_ids)).to(device)  # [N]
        segment = torch.repeat_interleave(torch.tensor([len(ids) for ids in label_ids])).to(device) + 1  # [N]
        valid = torch.ones(states.shape[:2], device=device) if attention_mask is None else attention_mask
        packing = LabelPacking(valid.long(), segment.expand(rows, -1))
        targets = labels.expand(rows, -1)
        logits = model(
            encoder_outputs=BaseModelOutput(states),  # pyright: ignore[reportArgumentType]
            decoder_input_ids=packing.shift_right(targets),
            packing=packing,
        ).logits
        log_probabilities = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # [B, N]
        scores = torch.zeros(rows, len(label_ids), device=device)
        return scores.index_add(1, segment - 1, log_probabilities)
