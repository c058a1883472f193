"""Draft heads: small heads over the decoder's final states that guess the ids after the next one.

Decoding verifies their guesses, so they change no answer, only its speed (`kebyt5_xm.model.decoding.drafting`).
They are trained on detached states: no gradient of theirs reaches the model. The heads are Medusa's (Cai et al. 2024,
arXiv 2401.10774) without hidden layer, each with a table over the id before the one that it guesses: a byte says much
about the next one.

Letters in shapes: C heads, B rows, T decoder positions, D the model's width, V the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.errors import UserError

PREFIX = "draft_heads."
"""Prefix of their tensors' names in a model with draft heads."""

FILE = "draft_heads.safetensors"
"""Their file in an export, beside the weights; plain transformers does not read it."""

MAX_COUNT = 15
"""More heads guess ids that no pass verifies (`LONG` in `kebyt5_xm.model.decoding.drafting`)."""


@dataclass
class DraftHeads:
    """`model.draft_heads` in a recipe: heads that guess bytes beyond the next one.

    They are trained beside the model, or alone with `model.backbone.frozen: true`. They start from random values,
    also if `model.backbone.weights` has heads.

    Args:
        count: number of heads; head number i guesses the byte i positions after the next one.
    """

    count: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_COUNT:
            raise UserError(
                f"model.draft_heads.count is {self.count}, expected 1 to {MAX_COUNT}; take the block out for none"
            )


class DraftHeadsModule(nn.Module):
    """The weights of draft heads. Head c guesses the id c + 1 positions after the next one, c from 0.

    They are drawn without a change to torch's global generator, so the rest of a model starts as it would without.
    """

    def __init__(self, count: int, d_model: int, vocab_size: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, vocab_size, d_model, device=device))
        self.table = nn.Parameter(torch.empty(count, vocab_size, vocab_size, device=device))
        if not self.weight.is_meta:
            with torch.random.fork_rng(devices=[]):
                nn.init.normal_(self.weight, std=d_model**-0.5)
                nn.init.normal_(self.table, std=0.01)

    @property
    def count(self) -> int:
        """Number of heads."""
        return len(self.weight)

    def forward(self, states: Tensor, decoder_input_ids: Tensor) -> Tensor:
        """Return the logits [C, B, T, V] of all heads.

        `states` [B, T, D] are the decoder's after its last norm. `decoder_input_ids` [B, T] are what it saw, so the
        id before that of head c is c + 1 positions later. Positions for which that is after the end have no meaning.
        """
        found = []
        for head, (weight, table) in enumerate(zip(self.weight, self.table, strict=True), 1):
            before = decoder_input_ids.roll(-head, 1)
            found.append(F.linear(states, weight) + F.embedding(before, table))
        return torch.stack(found)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str) -> "DraftHeadsModule":
        """Return heads with the tensors `weight` and `table`; `name` is for errors. Raises `UserError`."""
        weight, table = tensors.get("weight"), tensors.get("table")
        if len(tensors) != 2 or weight is None or table is None or weight.ndim != 3 or table.ndim != 3:
            raise UserError(
                f"'{name}' holds {', '.join(tensors) or 'nothing'}; expected draft heads: weight, table"
            )
        heads = cls(len(weight), weight.shape[2], weight.shape[1], torch.device("meta"))
        if heads.table.shape != table.shape:
            raise UserError(
                f"the table of the draft heads of '{name}' is {list(table.shape)}, expected {list(heads.table.shape)}"
            )
        heads.load_state_dict(dict(tensors), assign=True)
        return heads

    def check(self, d_model: int, vocab_size: int, name: str) -> None:
        """Raise `UserError` unless the heads are for this width and vocabulary; `name` is for errors."""
        if self.weight.shape[1:] != (vocab_size, d_model):
            raise UserError(
                f"the draft heads of '{name}' are for width {self.weight.shape[2]} and {self.weight.shape[1]} ids, "
                f"the model has {d_model} and {vocab_size}; use both as they were exported"
            )


def draft_labels(labels: Tensor, segments: Tensor | None, count: int) -> Tensor:
    """Return the labels [C, B, T] of draft heads for those of the model [B, T], which are shifted further.

    With `segments` [B, T], of packed rows, a label counts only within its own example.
    """
    found = []
    for head in range(1, count + 1):
        shifted = labels.roll(-head, 1)
        shifted[:, -head:] = IGNORE_INDEX
        if segments is not None:
            shifted = shifted.masked_fill(segments.roll(-head, 1) != segments, IGNORE_INDEX)
        found.append(shifted)
    return torch.stack(found)
