"""What training will take: memory of one device, time of a step and of the run."""

from collections.abc import Iterator

import torch

from kebyt5_xm.commands.doctor.costs import Pass
from kebyt5_xm.commands.doctor.findings import Finding
from kebyt5_xm.commands.doctor.step_time import StepTime
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.flops import A100, examples_flops, media_flops, training_passes
from kebyt5_xm.training.memory import optimizer_bytes
from kebyt5_xm.training.optimization import OptimizerFactory

GB = 1e9
COMPILED_SHARE = 0.31
"""Share of that peak that nanoT5's compiled T5 reaches in bf16 (its README); 0.13 without compiling."""


def estimates(
    model: CrossModalT5,
    done: Pass,
    batch: Batch,
    optimizer: OptimizerFactory,
    found: StepTime,
    max_steps: int,
) -> Iterator[Finding]:
    """Yield the estimates of memory and time.

    Args:
        done: the pass over `batch`, a few examples.
        found: the time of a step.
        max_steps: optimizer steps of the run.
    """
    total = sum(p.numel() for p in model.parameters())
    trained = [p for p in model.parameters() if p.requires_grad]
    trainable = sum(p.numel() for p in trained)
    state = optimizer_bytes(trained, optimizer)
    yield Finding(
        "estimate: memory",
        "ok",
        f"{(4 * total + 4 * trainable + state + found.kept_bytes) / GB:.2f} GB on one device in fp32 = weights 4 x "
        f"{total:,} + gradients 4 x {trainable:,} bytes + optimizer {state / GB:.2f} GB + activations "
        f"{found.kept_bytes / GB:.2f} GB (kept by a micro-batch of {found.rows} rows, {found.positions} positions); "
        "lower data.micro_batch_size or data.budget.micro_length, or set model.backbone.gradient_checkpointing, if "
        "that is too much",
    )
    text = examples_flops(model.backbone.config, found.lengths, training_passes(model.backbone))
    media = media_flops(model, batch) / done.rows * len(found.lengths)
    flops = text + media
    how = f"measured: {found.steps} steps" if found.steps else "scaled from a part of the first micro-batch"
    loading = (
        f", of them {found.loading:.2g} s for loading"
        if not found.num_workers
        else (f"; loading takes {found.loading:.2g} s, shared by {found.num_workers} data workers")
    )
    yield Finding(
        "estimate: time a step",
        "ok",
        f"{found.seconds:.2g} s here ({how}, {torch.get_num_threads()} threads, fp32{loading}), so "
        f"{duration(found.seconds * max_steps)} for {max_steps} steps without validation; {flops / 1e12:.3g} TFLOP, "
        f"{media / flops:.0%} of it in media encoders and adapters, {flops / 1e12 / A100 / COMPILED_SHARE:.2g} s on "
        f"an A100 at {COMPILED_SHARE:.0%} of its bf16 peak",
    )


def duration(seconds: float) -> str:
    """Return seconds as text with the unit that suits them."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
