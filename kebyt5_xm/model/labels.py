"""Answers from a closed list: the exact probability of every label.

A label is written as its bytes and the end of sequence, so none is the beginning of another, and the probability
that the model writes it is the product over its ids. Among the labels alone these are normalised to sum to one. All
labels of an example are scored in one decoder row, isolated from each other (`kebyt5_xm.data.inputs.Packing`), so the
encoder's states are read once; what another byte would have cost does not matter, for no other can be written.

Shape suffixes: B rows, L labels, N decoder positions of all labels, S encoder positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.data.sources.words import checked
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, encode

MAX_POSITIONS = 4096
"""Decoder positions of the labels that are scored in one row."""
MAX_PAIRS = 1 << 24
"""Pairs of positions that attend to each other in one call of the decoder, over its rows: attention holds a number a
head for each, which makes 0.8 GB with base's twelve heads in fp32."""


@dataclass
class SideBySide(Packing):
    """Labels in one decoder row, each of which sees itself and the whole encoder row, not its neighbours.

    `segments` [B, S] is 1 where the encoder's row holds something.
    """

    def cross_mask(self) -> Tensor:
        return (self.segments != 0)[:, None, None].expand(-1, -1, self.target_segments.shape[1], -1)


class LabelScorer:
    """The labels of a classification. Raises `UserError` for fewer than two, an empty one, or one given twice."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = checked(labels)
        self._ids = [np.append(encode(label), EOS_ID).astype(np.int64) for label in self.labels]

    def log_probabilities(
        self,
        model: CrossModalNetwork,
        states: Tensor,
        attention_mask: Tensor | None,
        everywhere: Callable[[bool], bool] = bool,
    ) -> Tensor:
        """Return the log-probability [B, L] of every label, normalised over the labels.

        `states` [B, S, D] are the encoder's, `attention_mask` [B, S] says which count. `everywhere` says whether what
        is true here is true on every rank: all ranks call the decoder equally often, as sharded weights want it.
        """
        num_rows, num_states = states.shape[:2]
        most = MAX_POSITIONS
        while most > 1 and not everywhere(num_rows * most * max(most, num_states) <= MAX_PAIRS):
            most //= 2
        scores = []
        for first, last in self._chunks(most):
            chosen = self._ids[first:last]
            # A label of more positions than that has fewer rows.
            rows = max(1, num_rows * most**2 // max(most, sum(map(len, chosen))) ** 2)
            masks = [None] * num_rows if attention_mask is None else attention_mask.split(rows)
            parts = zip(states.split(rows), masks, strict=False)
            scores.append(torch.cat([self._scores(model, part, mask, chosen) for part, mask in parts]))
        return torch.cat(scores, dim=1).log_softmax(dim=1)

    def _chunks(self, most: int) -> list[tuple[int, int]]:
        """Return runs of labels of at most so many positions, or one label of more."""
        chunks, first, size = [], 0, 0
        for number, ids in enumerate(self._ids):
            if size and size + len(ids) > most:
                chunks.append((first, number))
                first, size = number, 0
            size += len(ids)
        return [*chunks, (first, len(self._ids))]

    def _scores(
        self, model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, chosen: list[Any]
    ) -> Tensor:
        device, rows = states.device, len(states)
        labels = torch.from_numpy(np.concatenate(chosen)).to(device)  # [N]
        segment = torch.repeat_interleave(torch.tensor([len(ids) for ids in chosen])).to(device) + 1  # [N]
        present = torch.ones(states.shape[:2], device=device) if attention_mask is None else attention_mask
        packing = SideBySide(present.long(), segment.expand(rows, -1))
        targets = labels.expand(rows, -1)
        logits = model(
            encoder_outputs=BaseModelOutput(states),  # pyright: ignore[reportArgumentType]
            decoder_input_ids=packing.shift_right(targets),
            packing=packing,
        ).logits
        taken = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]  # [B, N]
        scores = torch.zeros(rows, len(chosen), device=device)
        return scores.index_add(1, segment - 1, taken)
