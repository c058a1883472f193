"""From the plan to optimizer steps: which examples make a global batch, and how it falls into micro-batches.

A global batch is formed first and then dealt to the ranks, so the same examples enter an optimizer step on any
number of ranks. It starts at the example where the one before it ended: `(step, start)` is all there is to resume.

- `CountedSteps`: as many examples a step as asked for, cut into micro-batches in the plan's order.
- `BudgetedSteps`: as many as fill a fixed number of micro-batches of so many positions each. The length of an
  example is its encoder positions (text bytes and slots) or its target ids, whichever is more, and comes from the
  sources' length tables, so nothing is decoded. Micro-batches are padded, of examples of like length; or packed.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kebyt5_xm.data.order.plan import Draws, Plan
from kebyt5_xm.errors import UserError

Lengths = Callable[[Draws], NDArray[np.int64]]
"""Draws -> [n, 2], encoder positions and target ids of each; zeros for one that cannot be made."""
SURE = 1.05
"""A row's length may depend on its draw a little, as where spans fall: so much more has to be there."""
AT_ONCE = 1 << 16
"""Rows whose lengths are looked up at a time."""


@dataclass(frozen=True)
class MicroBatch:
    """The examples of one forward pass on one rank. `packed_row` tells the row of each where rows are packed.

    `left_out` are draws of the step that are known to give no example, or one too long: they are counted here.
    """

    draws: Draws
    packed_row: NDArray[np.int64] | None = None
    left_out: Draws | None = None


@dataclass(frozen=True)
class GlobalBatch:
    """The examples `start` to `stop` (exclusive) of the run as micro-batches; `num_targets` ids in all."""

    start: int
    stop: int
    micro_batches: list[MicroBatch] = field(repr=False)
    num_targets: int


@dataclass(frozen=True)
class Budget:
    """A global batch by length instead of by number of examples: `data.budget` in a recipe.

    An example takes its encoder positions (text bytes and slots) or its target ids, whichever is more.

    Args:
        global_length: positions of one optimizer step, over all ranks, padding included.
        micro_length: positions of one forward pass on one rank; it divides `global_length`.
        packed_length: fill rows of so many positions with several examples that do not see each other, in place
            of padding; it divides `micro_length`.
    """

    global_length: int
    micro_length: int
    packed_length: int | None = None

    def check(self) -> None:
        """Raise `UserError` if one does not divide the other. Not on being made: a parser does that, unawares."""
        pairs = [("global_length", self.global_length, "micro_length", self.micro_length)]
        if self.packed_length is not None:
            pairs.append(("micro_length", self.micro_length, "packed_length", self.packed_length))
        for name, value, divisor_name, divisor in pairs:
            if divisor < 1 or value < 1 or value % divisor:
                raise UserError(
                    f"data.budget.{name} is {value}, expected a multiple of {divisor_name} {divisor}; change one of "
                    "them"
                )

    @property
    def longest(self) -> int:
        """The positions that there is room for in one row."""
        return self.packed_length or self.micro_length

    def __str__(self) -> str:
        packed = "" if self.packed_length is None else f", packed into rows of {self.packed_length}"
        return f"{self.global_length} positions in micro-batches of {self.micro_length}{packed}"


class Steps(ABC):
    """Cuts the plan into global batches of `num_micro_batches` each, a multiple of the number of ranks."""

    num_micro_batches: int

    @abstractmethod
    def batch(self, start: int) -> GlobalBatch:
        """Return the global batch that starts at example `start` of the run.

        Raises `UserError` if the sources end before it is whole.
        """

    @abstractmethod
    def count(self, most: int) -> int:
        """Return how many steps there are before the sources end, but no more than `most`."""


@dataclass
class CountedSteps(Steps):
    """`num_micro_batches` of `micro_batch_size` examples each. One that cannot be made keeps its place."""

    plan: Plan
    lengths: Lengths
    micro_batch_size: int
    num_micro_batches: int

    def batch(self, start: int) -> GlobalBatch:
        size = self.micro_batch_size
        draws = self.plan.rows(start, start + size * self.num_micro_batches)
        if len(draws) < size * self.num_micro_batches:
            raise _ended(start + len(draws))
        cuts = [draws[place : place + size] for place in range(0, len(draws), size)]
        num_targets = int(self.lengths(draws)[:, 1].sum())
        return GlobalBatch(start, start + len(draws), [MicroBatch(cut) for cut in cuts], num_targets)

    def count(self, most: int) -> int:
        if self.plan.num_examples is None:
            return most
        return min(most, self.plan.num_examples // (self.micro_batch_size * self.num_micro_batches))


@dataclass
class BudgetedSteps(Steps):
    """As many examples as fill the budget. One that is impossible or too long is left out and counted."""

    plan: Plan
    lengths: Lengths
    budget: Budget

    def __post_init__(self) -> None:
        self.budget.check()
        self.num_micro_batches = self.budget.global_length // self.budget.micro_length

    def batch(self, start: int) -> GlobalBatch:
        draws, lengths = self._window(start)
        longest, fits = lengths.max(axis=1), self._fits(lengths)
        usable = np.flatnonzero(fits)
        if not len(usable):
            impossible = int((longest == 0).sum())
            raise UserError(
                f"found no example to train on among {len(draws)} draws from example {start} on: {impossible} cannot "
                f"be made (`kebyt5-xm lint` with the same -c says why), {len(draws) - impossible} are longer than "
                f"the {self.budget.longest} positions of data.budget's packed_length or micro_length; mend the rows, "
                "or raise these"
            )
        count, bins = self._most(longest[usable])
        # The step ends before the first usable example that it has no room for.
        stop = int(usable[count]) if count < len(usable) else len(draws)
        micro_batches = []
        for number in range(self.num_micro_batches):
            members, rows = bins[number] if number < len(bins) else ([], [])
            left_out = draws[:stop][~fits[:stop]] if number == 0 else None
            packed_row = None if self.budget.packed_length is None else np.asarray(rows, dtype=np.int64)
            chosen = draws[usable[np.asarray(members, dtype=np.int64)]]
            micro_batches.append(MicroBatch(chosen, packed_row, left_out))
        num_targets = int(lengths[usable[:count], 1].sum())
        return GlobalBatch(start, start + stop, micro_batches, num_targets)

    def count(self, most: int) -> int:
        """As `Steps.count`, step by step if it is close, since lengths decide; with a bar if it takes long.

        If the examples, end to end and without padding, fill that many steps and some more, none is counted.
        """
        if self.plan.num_examples is None or self._are_enough_for(most):
            return most
        start = 0
        for step in tqdm(range(most), unit=" steps", desc="counting steps", disable=None, delay=2.0):
            if start >= self.plan.num_examples:
                return step
            start = self.batch(start).stop
        return most

    def _fits(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        longest = lengths.max(axis=1)
        return (longest > 0) & (longest <= self.budget.longest)

    def _window(self, start: int) -> tuple[Draws, NDArray[np.int64]]:
        """Return draws from `start` on, of which those that fit are longer together than a step can be.

        Fewer where there are no more, or hardly one that fits.
        """
        budget = self.budget.global_length
        size = max(64, budget // 256)
        while True:
            draws = self.plan.rows(start, start + size)
            if not len(draws):
                raise _ended(start)
            lengths = self.lengths(draws)
            if lengths[self._fits(lengths)].max(axis=1).sum() > budget or len(draws) < size:
                return draws, lengths
            if size > budget + (1 << 17):  # all but a few of them are impossible
                return draws, lengths
            size *= 2

    def _most(self, longest: NDArray[np.int64]) -> "tuple[int, list[Bin]]":
        """Return the most first examples that fill no more micro-batches than there are, and those."""
        budget = self.budget.global_length
        high = int(np.searchsorted(np.cumsum(longest), budget, side="right"))
        low, best = 1, self._bins(longest[:1])
        if len(bins := self._bins(longest[:high])) <= self.num_micro_batches:
            return high, bins
        while low + 1 < high:
            middle = (low + high) // 2
            if len(bins := self._bins(longest[:middle])) <= self.num_micro_batches:
                low, best = middle, bins
            else:
                high = middle
        return low, best

    def _bins(self, longest: NDArray[np.int64]) -> "list[Bin]":
        order = np.argsort(-longest, kind="stable")
        if self.budget.packed_length is None:
            return _padded(longest, order, self.budget.micro_length, self.num_micro_batches)
        rows = self.budget.micro_length // self.budget.packed_length
        return _packed(longest, order, self.budget.packed_length, rows, self.num_micro_batches)

    def _are_enough_for(self, steps: int) -> bool:
        """Say whether there are so many steps beyond doubt: none has room for more positions than its budget."""
        if self.plan.given is not None:
            return False
        wanted = SURE * steps * self.budget.global_length
        for number, part in enumerate(self.plan.parts):
            for begin in range(0, part.num_rows, AT_ONCE):
                row = np.arange(begin, min(begin + AT_ONCE, part.num_rows))
                draws = Draws(np.full_like(row, number), np.zeros_like(row), row, row.astype(np.uint64))
                lengths = self.lengths(draws)
                wanted -= (part.epochs or 0) * int(lengths.max(axis=1)[self._fits(lengths)].sum())
                if wanted <= 0:
                    return True
        return False


Bin = tuple[list[int], list[int]]
"""One micro-batch: its examples, and the packed row of each."""


def _padded(longest: NDArray[np.int64], order: NDArray[np.int64], budget: int, wanted: int) -> list[Bin]:
    """Fill micro-batches with examples of like length, longest first, each padded to its longest."""
    bins = []
    place = 0
    while place < len(order):
        rows = max(1, budget // int(longest[order[place]]))
        bins.append(order[place : place + rows].tolist())
        place += rows
    while len(bins) < wanted and max(map(len, bins)) > 1:  # a rank without work would wait for the others
        fullest = max(range(len(bins)), key=lambda number: len(bins[number]))
        half = len(bins[fullest]) // 2
        bins[fullest : fullest + 1] = [bins[fullest][:half], bins[fullest][half:]]
    return [(members, []) for members in bins]


def _packed(
    longest: NDArray[np.int64], order: NDArray[np.int64], capacity: int, most_rows: int, wanted: int
) -> list[Bin]:
    """Fill rows of `capacity` positions, best fit, longest first; deal at most `most_rows` to a micro-batch."""
    free: list[tuple[int, int]] = []  # (positions left, row), in that order
    members: list[list[int]] = []
    for example in order.tolist():
        length = int(longest[example])
        place = bisect_left(free, (length, -1))
        if place == len(free):
            left, row = capacity, len(members)
            members.append([])
        else:
            left, row = free.pop(place)
        members[row].append(example)
        insort(free, (left - length, row))
    num_bins = max(-(-len(members) // most_rows), min(wanted, len(members)))
    bins: list[Bin] = []
    for dealt in np.array_split(np.arange(len(members)), num_bins):
        flat = [(example, row) for row, number in enumerate(dealt) for example in members[number]]
        bins.append(([example for example, _ in flat], [row for _, row in flat]))
    return bins


def _ended(num_examples: int) -> UserError:
    return UserError(
        f"the sources end after {num_examples} examples, inside a step; lower trainer.max_steps, or set `epochs` of "
        "a source higher, or to null"
    )
