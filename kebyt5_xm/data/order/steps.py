"""From the plan to optimizer steps: the examples of each global batch, and its micro-batches.

The global batch is formed first and then dealt to the ranks, so the same examples enter an optimizer step on any
number of ranks. It starts where the previous one ended: `(step, start)` is enough to resume.

- `CountedSteps`: a fixed number of examples a step, cut into micro-batches in the plan's order.
- `BudgetedSteps`: a fixed number of positions a step. The length of an example is the larger of its encoder positions
  (text bytes and slots) and its target ids; it comes from the sources' length tables, so nothing is decoded.
  Micro-batches hold examples of similar length, padded; or packed rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kebyt5_xm.data.order.bins import Bin, packed_bins, padded_bins
from kebyt5_xm.data.order.plan import Draws, Plan
from kebyt5_xm.errors import UserError

Lengths = Callable[[Draws], NDArray[np.int64]]
"""Draws -> [n, 2], encoder positions and target ids of each; zeros for an impossible example."""
Replan = Callable[[int, int, Plan], Plan]
"""Step, its first example, the plan of the step before -> the plan of the step (see `Cursor.plan_at`)."""
MARGIN = 1.05
"""A row's length may depend a little on its draw (where spans fall). The estimate of enough data allows for it."""
LOOKUP_ROWS = 1 << 16
"""Rows whose lengths are looked up at a time."""


@dataclass(frozen=True)
class MicroBatch:
    """The examples of one forward pass on one rank. If rows are packed, `packed_row` is the row of each example.

    `left_out` are draws of the step that are impossible or too long; they are counted with this micro-batch.
    """

    draws: Draws
    packed_row: NDArray[np.int64] | None = None
    left_out: Draws | None = None


@dataclass(frozen=True)
class GlobalBatch:
    """The examples `start` to `stop` (exclusive) of the run as micro-batches, with `num_targets` target ids in
    total.
    """

    start: int
    stop: int
    micro_batches: list[MicroBatch] = field(repr=False)
    num_targets: int


@dataclass(frozen=True)
class Budget:
    """A global batch by length instead of by number of examples: `data.budget` in a recipe.

    An example counts as the larger of its encoder positions (text bytes and slots) and its target ids.

    Args:
        global_length: positions of one optimizer step, over all ranks, padding included.
        micro_length: positions of one forward pass on one rank; it divides `global_length`.
        packed_length: pack several examples, which do not see each other, into rows of this many positions instead of
            padding; it divides `micro_length`.
    """

    global_length: int
    micro_length: int
    packed_length: int | None = None

    def check(self) -> None:
        """Raise `UserError` if one does not divide the other. Not in the constructor, which parsers call."""
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
        """The most positions of one row."""
        return self.packed_length or self.micro_length

    def __str__(self) -> str:
        packed = "" if self.packed_length is None else f", packed into rows of {self.packed_length}"
        return f"{self.global_length} positions in micro-batches of {self.micro_length}{packed}"


class Steps(ABC):
    """Cuts the plan into global batches of `num_micro_batches`, a multiple of the number of ranks."""

    plan: Plan
    num_micro_batches: int

    def with_plan(self, plan: Plan) -> Self:
        """Return the same steps of another plan; this object if it is the same one."""
        return self if plan is self.plan else replace(self, plan=plan)  # pyright: ignore[reportArgumentType] - subclasses are dataclasses

    @abstractmethod
    def batch(self, start: int) -> GlobalBatch:
        """Return the global batch that starts at example `start` of the run.

        Raises `UserError` if the sources end inside it.
        """

    @abstractmethod
    def count(self, limit: int, replan: Replan | None = None) -> int:
        """Return the number of steps before the sources end, at most `limit`; `replan` if weights change."""


@dataclass
class CountedSteps(Steps):
    """`num_micro_batches` of `micro_batch_size` examples. An impossible example leaves its place empty."""

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

    def count(self, limit: int, replan: Replan | None = None) -> int:
        if self.plan.num_examples is None:
            return limit
        return min(limit, self.plan.num_examples // (self.micro_batch_size * self.num_micro_batches))


@dataclass
class BudgetedSteps(Steps):
    """As many examples as fill the budget. Impossible and too long examples are skipped and counted."""

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
        count, bins = self._fill(longest[usable])
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

    def count(self, limit: int, replan: Replan | None = None) -> int:
        """As `Steps.count`, step by step if it is close, since lengths decide; with a bar if it takes long.

        If the examples, end to end and without padding, fill that many steps and some more, none is counted.
        """
        if self.plan.num_examples is None or self._are_enough_for(limit):
            return limit
        start, steps = 0, self
        for step in tqdm(range(limit), unit=" steps", desc="counting steps", disable=None, delay=2.0):
            if start >= self.plan.num_examples:
                return step
            steps = steps if replan is None else steps.with_plan(replan(step, start, steps.plan))
            start = steps.batch(start).stop
        return limit

    def _fits(self, lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
        longest = lengths.max(axis=1)
        return (longest > 0) & (longest <= self.budget.longest)

    def _window(self, start: int) -> tuple[Draws, NDArray[np.int64]]:
        """Return draws from `start` on, and their lengths: enough to fill a step.

        Fewer at the end of the run, or if hardly any example fits.
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
            if size > budget + (1 << 17):  # nearly all of them are impossible
                return draws, lengths
            size *= 2

    def _fill(self, longest: NDArray[np.int64]) -> "tuple[int, list[Bin]]":
        """Return how many of the first examples fit the micro-batches at most, and these micro-batches."""
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
            return padded_bins(longest, order, self.budget.micro_length, self.num_micro_batches)
        rows = self.budget.micro_length // self.budget.packed_length
        return packed_bins(longest, order, self.budget.packed_length, rows, self.num_micro_batches)

    def _are_enough_for(self, steps: int) -> bool:
        """Return True if the sources certainly give so many steps: no step takes more positions than its budget."""
        if self.plan.given is not None:
            return False
        wanted = MARGIN * steps * self.budget.global_length
        for number, part in enumerate(self.plan.parts):
            for begin in range(0, part.num_rows, LOOKUP_ROWS):
                row = np.arange(begin, min(begin + LOOKUP_ROWS, part.num_rows))
                draws = Draws(np.full_like(row, number), np.zeros_like(row), row, row.astype(np.uint64))
                lengths = self.lengths(draws)
                wanted -= (part.epochs or 0) * int(lengths.max(axis=1)[self._fits(lengths)].sum())
                if wanted <= 0:
                    return True
        return False


def _ended(num_examples: int) -> UserError:
    return UserError(
        f"the sources end after {num_examples} examples, inside a step; lower trainer.max_steps, or set `epochs` of "
        "a source higher, or to null"
    )
