"""The datasets of data workers: micro-batches of training, and of held-out rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from kebyt5_xm.data.batch import Batch, Progress, collate
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.order.plan import Draws
from kebyt5_xm.data.order.steps import MicroBatch, Replan, Steps


@dataclass(frozen=True)
class Order:
    """A request to a data worker: one micro-batch and its position in the run."""

    micro_batch: MicroBatch
    progress: Progress


@dataclass
class TrainingOrders:
    """The micro-batches of one rank in training order, from `step` on, whose first example is `start`.

    `replan` gives the plan of each step, if weights change.

    Runs in the model's process, so that workers need not know of each other. It costs arithmetic and lookups in the
    length tables.
    """

    steps: Steps
    rank: int
    world_size: int
    step: int
    start: int
    num_steps: int
    replan: Replan | None = None

    def __iter__(self) -> Iterator[Order]:
        start, steps = self.start, self.steps
        for step in range(self.step, self.num_steps):
            if self.replan is not None:
                steps = steps.with_plan(self.replan(step, start, steps.plan))
            batch = steps.batch(start)
            mine = batch.micro_batches[self.rank :: self.world_size]
            for number, micro_batch in enumerate(mine):
                last = number == len(mine) - 1
                progress = Progress(
                    # At least one: a step without a usable example has a loss of 0, not 0 / 0.
                    num_targets=max(1, batch.num_targets),
                    step=step,
                    next_step=step + last,
                    next_index=batch.stop if last else start,
                )
                yield Order(micro_batch, progress)
            start = batch.stop


@dataclass
class TrainingMicroBatches(Dataset):
    """Makes the micro-batches of `TrainingOrders`."""

    mixture: Mixture

    def __getitem__(self, order: Order) -> Batch:
        micro_batch = order.micro_batch
        draws = micro_batch.draws
        skipped = [] if micro_batch.left_out is None else self.mixture.skips(micro_batch.left_out)
        examples = self.mixture.load(draws)
        part, packed_row = draws.part, micro_batch.packed_row
        if not examples:  # an empty micro-batch keeps the rank in step
            examples, part = [Example.empty()], np.zeros(1, dtype=np.int64)
            packed_row = None if packed_row is None else np.zeros(1, dtype=np.int64)
        return collate(
            examples,
            part,
            interfaces=self.mixture.interfaces,
            progress=order.progress,
            packed_row=packed_row,
            skipped=skipped,
        )


@dataclass
class ValidationMicroBatches(Dataset):
    """The held-out rows of one part, dealt to the ranks.

    Every rank gets the same number of batches of the same size, as sharded models need. Rows that fill up the last
    batches have no labels and do not count.
    """

    mixture: Mixture
    part: int
    num_rows: int
    micro_batch_size: int
    rank: int
    world_size: int

    def __len__(self) -> int:
        return -(-self.num_rows // (self.micro_batch_size * self.world_size))

    def __getitem__(self, number: int) -> Batch:
        start = (number * self.world_size + self.rank) * self.micro_batch_size
        row = np.arange(start, start + self.micro_batch_size)
        real = row < self.num_rows
        row = np.where(real, row, 0)
        part = np.full_like(row, self.part)
        rows = Draws(part, np.zeros_like(row), row, row.astype(np.uint64))
        examples = [
            example if kept else replace(example, counted=False, skipped=None)
            for example, kept in zip(self.mixture.load(rows), real, strict=True)
        ]
        batch = collate(
            examples,
            part,
            interfaces=self.mixture.interfaces,
        )
        counted = np.asarray([example.counted for example in examples])
        batch.row = torch.from_numpy(np.where(counted, row, -1))
        return batch
