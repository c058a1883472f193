"""Classification: the exact probability of every label of a closed list.

A label is written as its bytes and the end of sequence, so no label is a prefix of another, and the probability that
the model writes it is the product over its ids. These products are normalised over the labels to sum to one. All
labels of an example are scored in one decoder row, isolated from each other (`kebyt5_xm.data.inputs.Packing`), so the
encoder's states are read once.

Letters in shapes: B rows, L labels, N decoder positions of all labels, S encoder positions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kebyt5_xm.data.sources.words import check_labels
from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

MAX_POSITIONS = 4096
"""Decoder positions that are scored in one row."""
MAX_PAIRS = 1 << 24
"""Pairs of positions in one call of the decoder, over all its rows. Attention holds one number per head for each:
0.8 GB with the twelve heads of `base` in fp32."""


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
        decoder = open_decoder(model, states, attention_mask)
        scores = []
        for first, last in self._chunks(limit):
            chunk = self._ids[first:last]
            # A single label of more than `limit` positions gets fewer rows.
            rows = max(1, num_rows * limit**2 // max(limit, sum(map(len, chunk))) ** 2)
            parts = [(begin, min(begin + rows, num_rows)) for begin in range(0, num_rows, rows)]
            scores.append(
                torch.cat([self._scores(decoder.select(*part), part[1] - part[0], chunk) for part in parts])
            )
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

    def _scores(self, decoder: Decoder, num_rows: int, label_ids: list[Any]) -> Tensor:
        device = decoder.device
        labels = torch.from_numpy(np.concatenate(label_ids)).to(device)  # [N]
        segment = torch.repeat_interleave(torch.tensor([len(ids) for ids in label_ids])).to(device) + 1  # [N]
        starts = torch.cat([segment.new_ones(1), segment.diff()]) > 0
        shifted = labels.roll(1).masked_fill(starts, PAD_ID)  # T5 starts with the pad id
        targets = labels.expand(num_rows, -1)
        logits = decoder.packed_logits(shifted.expand(num_rows, -1), segment)
        log_probabilities = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # [B, N]
        scores = torch.zeros(num_rows, len(label_ids), device=device)
        return scores.index_add(1, segment - 1, log_probabilities)
