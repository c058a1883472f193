"""Checks of the whole model on the first real examples: lengths, batches, padding."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kebyt5_xm.commands.doctor.findings import Finding, verdict
from kebyt5_xm.data.batch import IGNORE_INDEX, Batch, collate
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.source import Source
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import teacher_force
from kebyt5_xm.model.outputs import Outputs

ROWS = 16
"""Examples of each source whose lengths are checked."""

PER_SOURCE = 2
"""Examples of each source that the model runs on."""

TOLERANCE = 1e-4
"""Logits of one row may differ by this between batches, relative to their RMS if that is above 1.

Kernels alone cause about 3e-6 in logits of about 10 (fp32, sdpa)."""


def first_examples(name: str, source: Source, seed: int) -> tuple[list[Example], Finding]:
    """Return the usable ones among a source's first training examples, and the finding on their lengths."""
    first = source.first(ROWS, seed)
    examples = [example for example in first if example.skipped is None]
    skips = [example.skipped for example in first if example.skipped is not None]
    slots = [sum(medium.count for medium in example.media) for example in examples]
    found = f"of {len(first)} examples {len(examples)} can be used"
    if examples:
        positions = max(len(example.input_ids) for example in examples)
        found += (
            f"; longest input {positions} positions, most slots {max(slots)}, longest target "
            f"{max(len(example.target_ids) for example in examples)} ids"
        )
    limits = ""
    if source.max_source_length is not None:
        limits = f" (limits: {source.max_source_length} bytes of input, {source.max_target_length} of target)"
    key = f"data.sources.{name}.init_args"
    finding = verdict(
        f"{name}: lengths",
        not skips,
        found + limits + (f"; line {skips[0].line}: {skips[0].path}: {skips[0].cause}" if skips else ""),
        f"mend the rows of {key}.path, or raise {key}.max_source_length, max_target_length or limits",
    )
    return examples, finding


def batch_of(examples: list[Example], data: DataModule) -> Batch:
    """Return the examples as one batch on the CPU."""
    return collate(
        examples,
        np.zeros(len(examples), dtype=np.int64),
        interfaces=data.interfaces,
    ).to("cpu")


def forward(model: CrossModalT5, batch: Batch, ctc_positions: dict[str, Tensor] | None = None) -> Outputs:
    """Return the outputs for a batch; `ctc_positions` are those of `CTCHeads.forward`."""
    idle = {
        name: 1 for name in model.modalities if all(name != group.modality for group in batch.inputs.media)
    }
    return teacher_force(model, batch.inputs, batch.labels, idle, ctc_positions)


def check_samples(model: CrossModalT5, data: DataModule, examples: list[Example]) -> Iterator[Finding]:
    """Yield the findings on batches and padding of the whole model. Raises `UserError` if it cannot run."""
    model.eval()
    with torch.no_grad():
        batch = batch_of(examples, data)
        together = forward(model, batch).logits
        worst = 0.0
        for row, example in enumerate(examples):
            alone = forward(model, batch_of([example], data)).logits
            worst = max(worst, _difference(together[row, : alone.shape[1]], alone[0]))
        yield verdict(
            f"model: batch of {len(examples)}",
            worst <= TOLERANCE,
            f"logits differ from those of each example alone by {worst:.1e} (at most {TOLERANCE:.0e})",
            "an encoder or adapter lets padding or other examples in; the lines of model.modalities above say which",
        )
        padded = replace(
            batch,
            inputs=replace(batch.inputs, input_ids=F.pad(batch.inputs.input_ids, (0, 7)), full=False),
            labels=F.pad(batch.labels, (0, 5), value=IGNORE_INDEX),
        )
        change = _difference(forward(model, padded).logits[:, : together.shape[1]], together)
        yield verdict(
            "model: padding",
            change <= TOLERANCE,
            f"7 more padded positions and 5 more of the target change logits by {change:.1e} "
            f"(at most {TOLERANCE:.0e})",
            "the attention mask is lost; set model.backbone.attention to sdpa and model.slot_bias to shared",
        )


def _difference(found: Tensor, expected: Tensor) -> float:
    scale = expected.square().mean().sqrt().clamp(min=1.0)
    return float((found - expected).abs().max() / scale)
