"""From the plan to micro-batches: the dataset a worker holds and the iterable Lightning sees."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from kebyt5_xm.data.bad_sample import Skip
from kebyt5_xm.data.batch import Batch, collate
from kebyt5_xm.data.plan import Draws
from kebyt5_xm.data.pool import end_with_parent
from kebyt5_xm.data.source import Example, Selection, Source
from kebyt5_xm.data.steps import MicroBatch, Steps
from kebyt5_xm.errors import UserError
from kebyt5_xm.modality import MediaInterface

FETCH = 4
"""Micro-batches a worker hands over at a time: fewer, larger transfers between processes."""


@dataclass
class Mixture:
    """The sources and where the flat list of the plan's parts finds them."""

    sources: list[Source]
    source_of_part: list[int]
    part_in_source: list[int]
    seed: int
    held_out: bool = False
    interfaces: dict[str, MediaInterface] = field(default_factory=dict)

    def load(self, draws: Draws) -> list[Example]:
        """Return the examples of `draws`, in their order."""
        examples: list[Example | None] = [None] * len(draws)
        for source, where, selection in self._by_source(draws):
            for place, example in zip(where, source.load(selection), strict=True):
                examples[place] = example
        return [example for example in examples if example is not None]

    def lengths(self, draws: Draws) -> NDArray[np.int64]:
        """Return [n, 2]: encoder positions and target ids of each of `draws`; zeros for an impossible one."""
        lengths = np.zeros((len(draws), 2), dtype=np.int64)
        for source, where, selection in self._by_source(draws):
            lengths[where] = source.lengths(selection)
        return lengths

    def skips(self, draws: Draws) -> list[tuple[int, Skip]]:
        """Return (part, cause) of draws that give no example, or one that is too long for a micro-batch."""
        skips = []
        for part, row, example in zip(draws.part, draws.row, self.load(draws), strict=True):
            length = max(len(example.input_ids), len(example.target_ids))
            cause = f"{length} positions or target ids, more than a micro-batch or a packed row has room for"
            path = self.sources[self.source_of_part[part]].place(int(row))
            skips.append((int(part), example.skipped or Skip(path[1], path[0], cause)))
        return skips

    def _by_source(self, draws: Draws) -> Iterator[tuple[Source, np.ndarray, Selection]]:
        """Yield each source, the places of its draws among `draws`, and those draws."""
        source = np.asarray(self.source_of_part)[draws.part]
        part = np.asarray(self.part_in_source)[draws.part]
        for number in np.unique(source):
            where = np.flatnonzero(source == number)
            selection = Selection(part[where], draws.row[where], draws.index[where], self.seed, self.held_out)
            yield self.sources[number], where, selection


@dataclass(frozen=True)
class Order:
    """What a data worker is asked for: one micro-batch and its place in the run."""

    micro_batch: MicroBatch
    num_targets: int
    step: int
    next_step: int
    next_index: int


@dataclass
class TrainingOrders:
    """The micro-batches of one rank from `step` on, whose first example is `start`, in the order of training.

    It runs in the process of the model, so that no worker has to know what the others do; it costs arithmetic
    and a look into the length tables.
    """

    steps: Steps
    rank: int
    world_size: int
    step: int
    start: int
    num_steps: int

    def __iter__(self) -> Iterator[Order]:
        start = self.start
        for step in range(self.step, self.num_steps):
            batch = self.steps.batch(start)
            mine = batch.micro_batches[self.rank :: self.world_size]
            for number, micro_batch in enumerate(mine):
                last = number == len(mine) - 1
                yield Order(
                    micro_batch,
                    # At least one: a step without a single good example has a loss of zero, not of 0 / 0.
                    num_targets=max(1, batch.num_targets),
                    step=step,
                    next_step=step + last,
                    next_index=batch.stop if last else start,
                )
            start = batch.stop


@dataclass
class TrainingMicroBatches(Dataset):
    """Makes the micro-batches that it is given orders for."""

    mixture: Mixture

    def __getitem__(self, order: Order) -> Batch:
        micro_batch = order.micro_batch
        draws = micro_batch.draws
        skipped = [] if micro_batch.left_out is None else self.mixture.skips(micro_batch.left_out)
        examples = self.mixture.load(draws)
        part, packed_row = draws.part, micro_batch.packed_row
        if not examples:  # the rank has a place and nothing to put there
            examples, part = [Example.empty()], np.zeros(1, dtype=np.int64)
            packed_row = None if packed_row is None else np.zeros(1, dtype=np.int64)
        return collate(
            examples,
            part,
            interfaces=self.mixture.interfaces,
            num_targets=order.num_targets,
            step=order.step,
            next_step=order.next_step,
            next_index=order.next_index,
            packed_row=packed_row,
            skipped=skipped,
        )


@dataclass
class ValidationMicroBatches(Dataset):
    """The held-out rows of one part, dealt to the ranks.

    Every rank gets the same number of batches of the same size, as sharded models need; the rows that fill
    up the last ones have no labels and so count nowhere.
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
            num_targets=0,
            step=number,
            next_step=number,
            next_index=0,
        )
        counted = np.asarray([example.counted for example in examples])
        batch.row = torch.from_numpy(np.where(counted, row, -1))
        return batch


@dataclass
class _Told(Dataset):
    """Makes every item on one thread, and hands over a `UserError` as a value.

    Raised in a worker, it would arrive wrapped in that worker's traceback.
    """

    dataset: Dataset

    def __getitem__(self, order: Any) -> Any:
        # Kernels round differently on other numbers of threads, and a worker has one. What is prepared must not
        # depend on `num_workers`, so it is prepared on one thread without workers too.
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.dataset[order]
        except UserError as error:
            return error
        finally:
            torch.set_num_threads(num_threads)


KILLED_WORKER = (
    "a data worker was killed (by the system, if memory ran out); continue with --ckpt_path last, with a smaller "
    "data.num_workers if it was memory"
)


def is_of_killed_worker(error: RuntimeError) -> bool:
    """Say whether PyTorch raised this because a data worker is gone.

    It does so in a signal handler, so the error may come out of whatever the process is doing at that moment.
    """
    return "DataLoader worker" in str(error) and ("exited" in str(error) or "killed" in str(error))


def _start_worker(number: int) -> None:
    end_with_parent()


class Loader:
    """An iterable of micro-batches with a length.

    `length` is that of the whole run, also when `orders` begins in the middle: Lightning counts the micro-batches
    that a resumed run has behind it against it. `timeout` in seconds is how long a worker may take for one fetch.
    Raises the data's own `UserError`, and one where a worker was killed or took too long.
    """

    def __init__(
        self,
        dataset: Dataset,
        orders: Iterable[Any],
        length: int,
        num_workers: int,
        pin_memory: bool,
        timeout: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.orders = orders
        self.length = length
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self._anew = False

    def begin_anew(self, orders: Iterable[Any]) -> None:
        """Go on with other orders behind the micro-batch that was given last; what is prepared already is dropped."""
        self.orders = orders
        self._anew = True

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        self._anew = True
        while self._anew:
            self._anew = False
            for batch in self._batches():
                yield batch
                if self._anew:
                    break

    def _batches(self) -> Iterator[Batch]:
        fetches = DataLoader(
            _Told(self.dataset),
            batch_size=FETCH if self.num_workers else 1,
            sampler=self.orders,
            collate_fn=list,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            timeout=self.timeout if self.num_workers else 0.0,
            worker_init_fn=_start_worker,
        )
        iterator = iter(fetches)
        while True:
            try:
                fetched = next(iterator, None)
            except RuntimeError as error:
                raise self._explained(error) from error
            if fetched is None:
                return
            for batch in fetched:
                if isinstance(batch, UserError):
                    raise batch
                yield batch

    def _explained(self, error: RuntimeError) -> Exception:
        """Return what PyTorch says of a dead or slow worker as an error for people; anything else as it is."""
        if is_of_killed_worker(error):
            return UserError(KILLED_WORKER)
        if "timed out" in str(error):
            return UserError(
                f"a data worker gave nothing for {self.timeout:g} seconds: a file system or a URL that does not "
                "answer; continue with --ckpt_path last, with a larger data.timeout if it is only slow"
            )
        return error
