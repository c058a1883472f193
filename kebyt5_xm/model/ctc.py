"""A CTC head: reads the bytes of a transcript off the T5 encoder's states at the slots of its recording.

Attention finds out late which slots a byte belongs to; CTC (Graves et al. 2006) needs no attention, so encoder,
adapter and T5 encoder learn to hear from the first steps on. The decoder is trained as ever, beside it (Watanabe et
al. 2017, arXiv 1609.06773). A head is used in training alone: checkpoints have it, exports do not.

Letters in shapes: N recordings, M slots of one (padded), D the model's width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kebyt5_xm.errors import UserError

PREFIX = "ctc_heads."
"""Prefix of their tensors' names in a model with CTC heads."""

BLANK = 256
"""The class of the blank; the class of a byte is the byte."""

NUM_CLASSES = BLANK + 1

BLANK_BIAS = math.log(2 * 256)
"""The first bias of the blank, which makes it twice as probable as all bytes together: frames outnumber bytes. Our
own choice; from equal classes, the loss of the demo's speech was twice as high at step 20 (docs/experiments.md)."""

MAX_FRAMES_PER_SLOT = 64
"""A slot seldom covers more than half a second, in which nobody says 64 bytes."""


@dataclass
class CTC:
    """`model.modalities.NAME.ctc` in a recipe: a CTC loss beside the model's own, for modalities of sound.

    Args:
        weight: factor of the loss, which is a sum over recordings, as the model's own is one over target ids; the sum
            of both is divided by the number of target ids of the step.
        frames_per_slot: frames that the head makes of a slot. A transcript needs as many as it has bytes, and one
            more wherever a byte follows itself.
        sources: names in `data.sources` whose targets are transcripts: what is said, in the order in which it is
            said. May be left out if only one source feeds the modality.
        until: the weight falls from its value at step 0 to 0 at this step, in a straight line; constant by default.
    """

    weight: float = 0.1
    frames_per_slot: int = 4
    sources: list[str] | None = None
    until: int | None = None

    def check(self, key: str) -> None:
        """Raise `UserError` for values that cannot be used; `key` is their place in the recipe."""
        if not 0 < self.weight < float("inf"):
            raise UserError(
                f"{key}.weight is {self.weight}, expected more than 0, such as 0.1; take the block out for none"
            )
        if not 1 <= self.frames_per_slot <= MAX_FRAMES_PER_SLOT:
            raise UserError(
                f"{key}.frames_per_slot is {self.frames_per_slot}, expected 1 to {MAX_FRAMES_PER_SLOT}"
            )
        if self.until is not None and self.until < 1:
            raise UserError(f"{key}.until is {self.until}, expected the number of a step, 1 or more")
        if self.sources is not None and not self.sources:
            raise UserError(f"{key}.sources is empty; name a source of data.sources, or take the block out")

    def weight_at(self, step: int) -> float:
        """Return the factor of the loss in a step, counted from 0."""
        return self.weight if self.until is None else self.weight * max(0.0, 1 - step / self.until)


class CTCHead(nn.Module):
    """The weights of one head: a linear layer.

    They are drawn without a change to torch's global generator, so the rest of a model starts as it would without.
    """

    def __init__(self, d_model: int, frames_per_slot: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(frames_per_slot * NUM_CLASSES, d_model, device=device))
        self.bias = nn.Parameter(torch.zeros(frames_per_slot * NUM_CLASSES, device=device))
        if not self.weight.is_meta:
            with torch.random.fork_rng(devices=[]):
                nn.init.normal_(self.weight, std=d_model**-0.5)
            with torch.no_grad():
                self.bias.view(frames_per_slot, NUM_CLASSES)[:, BLANK] = BLANK_BIAS

    def forward(self, states: Tensor) -> Tensor:
        """Return the logits [N, M x frames per slot, `NUM_CLASSES`] of states [N, M, D]."""
        logits = nn.functional.linear(states, self.weight, self.bias)
        return logits.view(len(states), -1, NUM_CLASSES)


class CTCHeads(nn.ModuleDict):
    """Modality -> its head."""

    def forward(self, states: Tensor, positions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each head for the encoder's states [B, S, D].

        `positions` [N, M] are those of the recordings' slots in the states, row after row: row x S + position.
        Each head runs once, so that all ranks of a sharded model run alike.
        """
        flat = states.flatten(0, 1)
        return {name: head(flat[positions[name]]) for name, head in self.items()}
