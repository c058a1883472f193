"""From the plan to micro-batches: the dataset a worker holds and the iterable Lightning sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from torch.utils.data import DataLoader, Dataset

from kebyt5_xm.data.batch import Batch, collate
from kebyt5_xm.data.plan import Draws, Plan
from kebyt5_xm.data.source import Example, Source
from kebyt5_xm.encoder import Preprocessor
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

    def preprocessors(self) -> dict[str, Preprocessor]:
        """Return the preprocessor of every modality."""
        return {name: interface.preprocessor for name, interface in self.interfaces.items()}

    def load(self, rows: Draws) -> list[Example]:
        """Return the examples of `rows`, in their order."""
        examples: list[Example | None] = [None] * len(rows)
        for source, where, wanted in self._by_source(rows):
            for place, example in zip(where, source.load(*wanted), strict=True):
                examples[place] = example
        return [example for example in examples if example is not None]

    def num_targets(self, rows: Draws) -> int:
        """Return the number of target ids of all `rows` together."""
        return sum(int(source.target_lengths(*wanted).sum()) for source, _, wanted in self._by_source(rows))

    def _by_source(self, rows: Draws) -> Iterator[tuple[Source, np.ndarray, tuple]]:
        """Yield each source, the places of its rows, and what its `load` and `target_lengths` are called with."""
        source = np.asarray(self.source_of_part)[rows.part]
        part = np.asarray(self.part_in_source)[rows.part]
        for number in np.unique(source):
            where = np.flatnonzero(source == number)
            wanted = part[where], rows.row[where], rows.index[where], self.seed, self.held_out
            yield self.sources[number], where, wanted


@dataclass
class TrainingMicroBatches(Dataset):
    """Micro-batch i of one rank, for every i of the run.

    A global batch is cut into `accumulation` rounds of `world_size` micro-batches, so the same examples enter
    an optimizer step however many ranks share it.
    """

    mixture: Mixture
    plan: Plan
    micro_batch_size: int
    rank: int
    world_size: int
    accumulation: int
    num_steps: int
    _counted: tuple[int, int] = field(default=(-1, 0), repr=False)

    def __len__(self) -> int:
        return self.num_steps * self.accumulation

    def __getitem__(self, number: int) -> Batch:
        step, micro = divmod(number, self.accumulation)
        start = step * self.plan.global_batch_size
        start += (micro * self.world_size + self.rank) * self.micro_batch_size
        rows = self.plan.rows(start, start + self.micro_batch_size)
        return collate(
            self.mixture.load(rows),
            rows.part,
            preprocessors=self.mixture.preprocessors(),
            num_targets=self._num_targets(step),
            step=step,
            next_step=step + (micro == self.accumulation - 1),
        )

    def _num_targets(self, step: int) -> int:
        if self._counted[0] != step:
            # At least one: a step without a single good example has a loss of zero, not of 0 / 0.
            self._counted = step, max(1, self.mixture.num_targets(self.plan.step(step)))
        return self._counted[1]


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
            example if kept else replace(example, counted=False)
            for example, kept in zip(self.mixture.load(rows), real, strict=True)
        ]
        preprocessors = self.mixture.preprocessors()
        return collate(
            examples, part, preprocessors=preprocessors, num_targets=0, step=number, next_step=number
        )


class Loader:
    """An iterable of micro-batches with a length, starting at any of them.

    `len` is that of the whole run, also when it starts in the middle: Lightning counts the micro-batches that
    a resumed run has behind it against it.
    """

    def __init__(self, dataset: Dataset, start: int, num_workers: int, pin_memory: bool) -> None:
        self.dataset = dataset
        self.start = start
        self.num_workers = num_workers
        self.pin_memory = pin_memory

    def __len__(self) -> int:
        return len(self.dataset)  # pyright: ignore[reportArgumentType]

    def __iter__(self) -> Iterator[Batch]:
        fetches = DataLoader(
            self.dataset,
            batch_size=FETCH if self.num_workers else 1,
            sampler=range(self.start, len(self)),
            collate_fn=list,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
        )
        for fetched in fetches:
            yield from fetched
