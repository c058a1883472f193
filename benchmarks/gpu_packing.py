"""Packed rows compared with batches by length: an optimizer step of our model on a GPU in bf16, by attention.

Both train on texts of 30 to 1,500 bytes as `data.budget` batches them, with as many positions in a step. Packed rows
have 2,048 positions. A padded batch computes padding; a packed row may compute pairs of positions of different texts,
which the attention then masks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.device import Device, Group
from benchmarks.gpu_training import (
    FULL,
    MICRO_BATCHES,
    ROWS,
    TOY_FULL,
    TOY_ROWS,
    Size,
    Step,
    choices,
    make_examples,
    our_loss,
    random_backbone,
)
from kebyt5_xm.data.batch import Batch, Progress, collate
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5

PACKED_LENGTH = 2048


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the measurements, by size and attention."""
    for size in sizes:
        for attention in choices("attention"):
            yield (size, attention), partial(_prepare, size, attention, device)


def make_batches(device: Device, packed: bool) -> list[Batch]:
    """Return the micro-batches of one step, made by the loader's own functions from mixed lengths."""
    lengths = make_examples(device)["mixed"].lengths
    micro_length = TOY_ROWS * TOY_FULL[0] if device.toy else ROWS * FULL[0]
    row_length = micro_length if device.toy else PACKED_LENGTH
    plan = Plan((Part("texts", len(lengths), 1.0, "random"),), (1.0,), seed=0)
    budget = Budget(MICRO_BATCHES * micro_length, micro_length, row_length if packed else None)
    step = BudgetedSteps(plan, lambda draws: lengths[draws.row], budget).batch(0)
    rng = np.random.default_rng(0)
    batches = []
    for micro_batch in step.micro_batches:
        examples = [
            Example(*(rng.integers(3, 248, length).astype(np.int16) for length in lengths[row]))
            for row in micro_batch.draws.row
        ]
        if examples:
            batch = collate(
                examples,
                np.zeros(len(examples), dtype=np.int64),
                interfaces={},
                progress=Progress(num_targets=step.num_targets),
                packed_row=micro_batch.packed_row,
            )
            batches.append(batch.to(device.kind))
    return batches


def _prepare(size: Size, attention: Any, device: Device) -> dict[str, Callable[[], dict[str, float]]]:
    with torch.device(device.kind):
        t5 = random_backbone(size, device, attention=attention).build()
    model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).train()
    optimizer = torch.optim.AdamW(t5.parameters(), lr=1e-4, fused=True)
    rates: dict[str, float] = {}

    def measure(name: str, packed: bool) -> dict[str, float]:
        device.free_memory()
        batches = make_batches(device, packed)
        step = Step(device, optimizer, batches, partial(our_loss, model))
        seconds = device.measure_seconds(step, warmup=1, repeats=1 if device.toy else 3)
        ids = sum(batch.num_ids for batch in batches)
        positions = sum(batch.inputs.input_ids.numel() + batch.labels.numel() for batch in batches)
        rates[name] = ids / seconds
        figures = {"useful_bytes_per_s": rates[name], "padding_share": 1 - ids / positions}
        if packed and "by_length" in rates:
            figures["ratio_packed_to_by_length"] = rates[name] / rates["by_length"]
        return {**figures, **device.peak_memory()}

    return {name: partial(measure, name, name == "packed") for name in ("by_length", "packed")}
