"""The time of an optimizer step: real micro-batches of the run's first steps, made and trained on here."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from kebyt5_xm.commands.doctor.costs import Pass, ctc_of_all_sources, find_loss, training_pass
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import Order, TrainingMicroBatches, TrainingOrders
from kebyt5_xm.data.order.steps import MicroBatch
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import CTC
from kebyt5_xm.model.flops import examples_flops
from kebyt5_xm.training.ctc_loss import CTCLoss

TIMED_SECONDS, TIMED_STEPS = 15.0, 12
"""Steps are timed until one of these is reached, and at least one."""
LONGEST_SECONDS = 60.0
"""A step that is expected to take longer is not run; its time is scaled from a pass over a few examples."""
LOADED = 8
"""Examples whose loading is timed then."""


@dataclass(frozen=True)
class StepTime:
    """What a step takes on this machine.

    Attributes:
        training: seconds of forward and backward passes and the optimizer.
        loading: seconds of making the batches, in one process.
        num_workers: data processes of the recipe, which make batches meanwhile.
        steps: whole steps timed; 0 if the time is scaled by operations.
        kept_bytes: activations that the largest micro-batch of a step keeps.
        rows: its rows.
        positions: its encoder positions.
        lengths: (inputs, targets) of every example of a step.
    """

    training: float
    loading: float
    num_workers: int
    steps: int
    kept_bytes: float
    rows: int
    positions: int
    lengths: list[tuple[int, int]]

    @property
    def seconds(self) -> float:
        """Of a whole step. Workers load meanwhile, so only what they do not manage in time counts."""
        if not self.num_workers:
            return self.training + self.loading
        return max(self.training, self.loading / self.num_workers)


@dataclass
class _Parts:
    """The timed parts of one step."""

    training: float = 0.0
    loading: float = 0.0
    batches: list[Batch] = field(default_factory=list)


def time_steps(
    model: CrossModalT5,
    data: DataModule,
    optimizer: Optimizer,
    max_steps: int,
    done: Pass,
    heads: Mapping[str, CTC] | None = None,
) -> StepTime:
    """Train the model on the first steps of the run, and return what a step takes. The model changes.

    Args:
        data: connected.
        max_steps: steps of the run.
        done: a pass over a few examples; if a step would take too long, its time is scaled from this pass.
        heads: the model's CTC heads.
    """
    first = data.steps.batch(0)
    lengths = [
        (int(inputs), int(targets))
        for micro_batch in first.micro_batches
        for inputs, targets in data.training.lengths(micro_batch.draws)
    ]
    config = model.backbone.config
    sizes = examples_flops(config, [(done.inputs, done.targets)] * done.rows, 1.0)
    expected = examples_flops(config, lengths, 1.0) / sizes * done.seconds
    if expected > LONGEST_SECONDS:
        return _scaled(data, done, expected, first.micro_batches, lengths)
    ctc = ctc_of_all_sources(heads or {}, len(data.training.parts))
    model.train()
    timed: list[_Parts] = []
    kept, spent = None, 0.0
    for step in _steps(data, max_steps):
        if kept is None:  # also warms up: memory, kernels
            kept = training_pass(
                model, max(step.batches, key=lambda batch: batch.inputs.input_ids.numel()), ctc
            )
            _train(model, step.batches, optimizer, ctc)
        started = time.perf_counter()
        _train(model, step.batches, optimizer, ctc)
        step.training = time.perf_counter() - started
        step.batches.clear()
        timed.append(step)
        spent += step.training + step.loading
        if spent > TIMED_SECONDS or len(timed) == TIMED_STEPS:
            break
    assert kept is not None
    return StepTime(
        statistics.median(step.training for step in timed),
        statistics.median(step.loading for step in timed),
        data.num_workers,
        len(timed),
        kept.kept_bytes,
        kept.rows,
        kept.rows * kept.inputs,
        lengths,
    )


def _scaled(
    data: DataModule,
    done: Pass,
    seconds: float,
    micro_batches: list[MicroBatch],
    lengths: list[tuple[int, int]],
) -> StepTime:
    """Return the time of a step from that of a few examples: memory by positions, loading by examples."""
    largest = max(micro_batches, key=lambda micro: int(data.training.lengths(micro.draws)[:, 0].sum()))
    draws = largest.draws[:LOADED]
    started = time.perf_counter()
    data.training.load(draws)
    loading = (time.perf_counter() - started) / max(1, len(draws)) * len(lengths)
    found = data.training.lengths(largest.draws)
    if largest.packed_row is None:
        rows, positions = len(found), len(found) * int(found[:, 0].max(initial=0))
    else:
        rows, positions = int(largest.packed_row.max(initial=0)) + 1, int(found[:, 0].sum())
    kept = done.kept_bytes * positions / (done.rows * done.inputs)
    return StepTime(seconds, loading, data.num_workers, 0, kept, rows, positions, lengths)


def _steps(data: DataModule, max_steps: int) -> Iterator[_Parts]:
    """Yield one step after another, its batches made and timed as in a run without workers."""
    orders = TrainingOrders(data.steps, rank=0, world_size=1, step=0, start=0, num_steps=max_steps)
    for _, of_step in groupby(orders, key=lambda order: order.progress.step):
        chosen: list[Order] = list(of_step)
        loader = Loader(TrainingMicroBatches(data.training), chosen, len(chosen), 0, pin_memory=False)
        batches = [batch.to("cpu") for batch in loader]
        yield _Parts(loading=loader.seconds_waited, batches=batches)


def _train(model: CrossModalT5, batches: list[Batch], optimizer: Optimizer, ctc: CTCLoss) -> None:
    """Do one optimizer step."""
    for batch in batches:
        loss = find_loss(model, batch, ctc) / batch.progress.num_targets
        if loss.requires_grad:
            loss.backward()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
