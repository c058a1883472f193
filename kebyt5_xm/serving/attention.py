"""Which slots of its media each word of an answer looked at, as plain values.

Letters in shapes: n answers to one input, T ids, S encoder positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.adapters.slot_grid import SlotGrid
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.model.cross_attention import has_cross_attention, mean_cross_attention
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.delete_gate import input_weights, states_and_mask
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.vocabulary import BYTE_OFFSET

MAX_VALUES = 200_000
"""Weights of words in an answer; above it those of the whole answer stand alone. Our own choice."""
DECIMALS = 4
"""Of a weight: with 4096 slots an even weight is 0.0002."""


@dataclass(frozen=True)
class MediumSlots:
    """The slots of a medium in an input.

    Args:
        segment: number of the segment in the request, from 0.
        modality: of the medium.
        start: encoder position of its first slot.
        grid: which part of the medium each slot stands for.
    """

    segment: int
    modality: str
    start: int
    grid: SlotGrid


@torch.no_grad()
def slot_attention(
    model: CrossModalT5, example: Example, media: Sequence[MediumSlots], answers: Sequence[Hypothesis]
) -> list[list[dict[str, Any]]]:
    """Return for each answer to one input the attention to each of `media`; empty for a model that does not tell.

    It is the mean over layers, heads and bytes. Keys are those of `kebyt5_xm.serving.schemas.SlotAttention`.
    """
    if not media or not all(answer.ids for answer in answers) or not has_cross_attention(model):
        return [[] for _ in answers]
    inputs = model.processor.collate([example]).to(model.device)
    encoded = model.encode(**inputs)
    states, mask = states_and_mask(encoded, inputs["attention_mask"])
    found = []
    for answer in answers:  # one after another: n answers at once would need n times the memory
        ids = torch.tensor([answer.ids], device=model.device)
        weights = mean_cross_attention(model, states, mask, ids)
        weights = input_weights(encoded, weights)[0].cpu()  # [T, S]
        found.append([_describe(medium, weights, answer) for medium in media])
    return found


def _describe(medium: MediumSlots, weights: Tensor, answer: Hypothesis) -> dict[str, Any]:
    first = medium.start + medium.grid.first
    slots = weights[:, first : first + medium.grid.num_slots]
    places = [n for n, id_ in enumerate(answer.ids) if BYTE_OFFSET <= id_ < BYTE_OFFSET + 256]
    whole = slots[places or [0]].mean(0)
    spans = answer.word_bytes if len(answer.word_bytes) * medium.grid.num_slots <= MAX_VALUES else ()
    return {
        "segment": medium.segment,
        "modality": medium.modality,
        "shape": list(medium.grid.shape),
        "extents": list(medium.grid.extents),
        "share": round(float(whole.sum()), DECIMALS),
        "answer": _rounded(whole),
        "words": [_rounded(slots[places[start:end]].mean(0)) for start, end in spans],
    }


def _rounded(weights: Tensor) -> list[float]:
    return [round(weight, DECIMALS) for weight in weights.tolist()]
