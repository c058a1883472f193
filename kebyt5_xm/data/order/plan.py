"""The plan: a pure function from a number to the example that a run draws at that position.

Example n of a run is (part, epoch, row) by arithmetic alone:

- a block of `BLOCK` consecutive examples holds every part exactly as often as its weight says, in a pseudo-random
  order, a permutation by a key;
- the k-th example of a part is row `permute(k mod rows, key=epoch)` of epoch `k div rows`.

So nothing is stored or replayed: any rank finds any example at once (the order of a block takes a tenth of a
second and is cached), and shuffling 10^11 rows needs no memory. `kebyt5_xm.data.order.steps` groups examples into
optimizer steps.

Weights may change within a run: `continued` returns the plan of the rest, where every part goes on at its next row.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.randomness import hash64, permute
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.errors import UserError

BLOCK = 1 << 16
"""Examples in a block. Weights are exact to 1/65536, and every part occurs at least once in a block."""

CACHED_BLOCKS = 2
"""Orders of blocks that a plan caches, 0.8 MB each. Two, because a step may cross the edge of a block."""

AHEAD = 1024
"""Examples that are computed at a time: as fast as a few, and steps ask for consecutive ones."""

_ORDER, _ROWS = 1, 2  # first number of every key, so that no two permutations share a key


@dataclass(frozen=True)
class Draws:
    """Draws of the plan: parallel arrays of one length, in training order."""

    part: NDArray[np.int64]
    epoch: NDArray[np.int64]
    row: NDArray[np.int64]
    index: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, where: slice | NDArray) -> "Draws":
        return Draws(self.part[where], self.epoch[where], self.row[where], self.index[where])


@dataclass(frozen=True)
class Plan:
    """The order of a whole run. Each of the mixture's `parts` has a weight; only their ratio counts.

    A part with a limited number of epochs gives all its rows; after that the other parts fill its share, in
    proportion to their weights.

    A part of weight 0 waits for a plan that continues this one.

    A plan that continues another one begins at example `begin`, after `given` examples of each part.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...]
    seed: int
    begin: int = 0
    given: tuple[int, ...] | None = None
    _blocks: "dict[int, BlockOrder]" = field(default_factory=dict, init=False, compare=False, repr=False)
    _ahead: list[Draws] = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("no source gives any training example; add one under data.sources")
        for part, weight in zip(self.parts, self.weights, strict=True):
            if part.num_rows < 1:
                raise UserError(f"'{part.name}' has no training rows; its corpus is shorter than one example")
            if part.epochs is not None and part.epochs < 1:
                raise UserError(f"'{part.name}' has epochs {part.epochs}; expected 1 or more, or null")
            if not weight >= 0:
                raise UserError(f"'{part.name}' has weight {weight}; expected more than 0 (or leave it out)")

    @cached_property
    def phases(self) -> "list[Phase]":
        """The stretches of blocks with equal composition: one, unless parts end after their epochs."""
        weights = np.asarray(self.weights, dtype=np.float64)
        limits = np.asarray(
            [np.inf if part.epochs is None else float(part.num_rows * part.epochs) for part in self.parts]
        )
        used = np.asarray(self.given or [0] * len(weights), dtype=np.int64)
        phases: list[Phase] = []
        block = 0
        while (left := np.subtract(limits, used, dtype=np.float64)).any():
            counts = _counts(np.where(left > 0, weights, 0.0), BLOCK)
            ending = np.isfinite(left) & (left > 0)  # where parts end, no weight is 0: see `check_weights`
            num_blocks = int((left[ending] // counts[ending]).min()) if ending.any() else None
            if num_blocks is None:
                phases.append(Phase(block, counts, used))
                break
            if num_blocks:
                phases.append(Phase(block, counts, used))
            else:  # a part ends inside this block; the others fill its share
                counts, num_blocks = _ending_block(weights, left), 1
                phases.append(Phase(block, counts, used))
            used = used + num_blocks * counts
            block += num_blocks
        return phases

    @cached_property
    def num_examples(self) -> int | None:
        """The number of examples, or None if a part repeats without end."""
        if any(part.epochs is None for part in self.parts):
            return None
        return sum(part.num_rows * (part.epochs or 0) for part in self.parts)

    def rows(self, start: int, stop: int) -> Draws:
        """Return the examples `start` to `stop` (exclusive) of the run, fewer at its end."""
        end = max(stop, start + AHEAD)
        if self.num_examples is not None:
            stop, end = (max(start, min(place, self.num_examples)) for place in (stop, end))
        if stop == start:
            return self._compute(start, stop)
        first = int(self._ahead[0].index[0]) if self._ahead else stop
        if not first <= start < stop <= first + len(self._ahead[0]):
            self._ahead[:] = [self._compute(start, end)]
            first = start
        return self._ahead[0][start - first : stop - first]

    def _compute(self, start: int, stop: int) -> Draws:
        index = np.arange(start, stop, dtype=np.int64)
        part, nth = self._places(index)
        num_rows = np.asarray([p.num_rows for p in self.parts], dtype=np.int64)[part]
        epoch, offset = np.divmod(nth, num_rows)
        row = np.empty_like(offset)
        for p, e in {(int(p), int(e)) for p, e in zip(part, epoch, strict=True)}:
            here = (part == p) & (epoch == e)
            row[here] = permute(offset[here], self.parts[p].num_rows, _key(self.seed, _ROWS, p, e))
        return Draws(part, epoch, row, index.astype(np.uint64))

    def _places(self, index: NDArray[np.int64]) -> "BlockOrder":
        """Return the part of each example, and its number within the part."""
        block, place = np.divmod(index - self.begin, BLOCK)
        part, nth = np.empty_like(place), np.empty_like(place)
        for number in np.unique(block):
            here = block == number
            order = self._order(int(number))
            part[here], nth[here] = order.part[place[here]], order.nth[place[here]]
        return BlockOrder(part, nth)

    def _order(self, number: int) -> "BlockOrder":
        """Return the part of every example in a block, and its number within the part."""
        if number not in self._blocks:
            phase = self._phase(number)
            counts = phase.counts
            size = int(counts.sum())  # less than BLOCK in the last block of a run that ends
            key = _key(self.seed, _ORDER, number, *([self.begin] if self.begin else []))
            part = np.repeat(np.arange(len(counts)), counts)[permute(np.arange(size), size, key)]
            # In stable order of parts, a part's examples stand together; they are numbered on from those before.
            nth = np.empty_like(part)
            nth[np.argsort(part, kind="stable")] = np.arange(size) + np.repeat(
                phase.before(number) - np.cumsum(counts) + counts, counts
            )
            while len(self._blocks) >= CACHED_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            self._blocks[number] = BlockOrder(part, nth)
        return self._blocks[number]

    def _phase(self, block: int) -> "Phase":
        begins = [phase.block for phase in self.phases]
        return self.phases[int(np.searchsorted(begins, block, side="right")) - 1]

    def shares(self, index: int) -> NDArray[np.float64]:
        """Return each part's share of the block that example `index` is in; zeros after the end."""
        if not self.phases:
            return np.zeros(len(self.parts))
        counts = self._phase((index - self.begin) // BLOCK).counts
        return counts / counts.sum()

    def drawn(self, index: int) -> NDArray[np.int64]:
        """Return how many examples of each part the whole run has before example `index`."""
        if not self.phases:  # the plan that it continues had ended
            return np.asarray(self.given, dtype=np.int64)
        block = (index - self.begin) // BLOCK
        return self._phase(block).before(block) + self.count(self.begin + block * BLOCK, index)

    def count(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return how many of the examples `start` to `stop` (exclusive) are of each part."""
        part, _ = self._places(np.arange(start, stop, dtype=np.int64))
        return np.bincount(part, minlength=len(self.parts))

    def continued(self, index: int, weights: tuple[float, ...]) -> "Plan":
        """Return the plan that goes on from example `index` with other weights.

        A new block begins at `index`, and every part goes on at its next row: no row is left out or drawn twice.
        """
        return replace(self, weights=weights, begin=index, given=tuple(self.drawn(index).tolist()))

    def description(self) -> dict[str, object]:
        """Return everything that decides the order, as plain values."""
        total = sum(self.weights)
        return {
            "order": "epoch by epoch",  # marks this order: plans of older runs, which mixed epochs, lack it
            "seed": self.seed,
            **{
                f"parts.{part.name}": f"{part.num_rows} rows, share {weight / total:.6f}, {part.fingerprint}"
                + ("" if part.epochs is None else f", {part.epochs} epochs")
                for part, weight in zip(self.parts, self.weights, strict=True)
            },
        }


class BlockOrder(NamedTuple):
    """For each example of a block: its part, and its number among all examples of the part."""

    part: NDArray[np.int64]
    nth: NDArray[np.int64]


@dataclass(frozen=True)
class Phase:
    """Blocks of equal composition, from number `block` on. Arrays have one entry for each part."""

    block: int
    counts: NDArray[np.int64]  # examples of a block
    used: NDArray[np.int64]  # examples given before

    def before(self, block: int) -> NDArray[np.int64]:
        """Return how many examples of each part come before `block`."""
        return self.used + (block - self.block) * self.counts


def _counts(weights: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return how many of `size` examples each part gets, by largest remainder.

    A part of positive weight gets at least one; a part of weight zero gets none.
    """
    exact = weights / weights.sum() * size
    least = (weights > 0).astype(np.int64)
    counts = np.maximum(np.floor(exact).astype(np.int64), least)
    while (missing := size - counts.sum()) != 0:
        gap = np.where(weights > 0, exact - counts, -np.inf)
        if missing > 0:
            counts[np.argsort(-gap, kind="stable")[:missing]] += 1
        else:
            counts[np.argmin(np.where(counts > 1, gap, np.inf))] -= 1
    return counts


def _ending_block(weights: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the counts of a block in which at least one part has fewer examples `left` than its share."""
    counts = np.zeros(len(weights), dtype=np.int64)
    open_parts = left > 0
    while open_parts.any():
        size = BLOCK - counts[~open_parts].sum()
        shares = _counts(np.where(open_parts, weights, 0.0), int(size))
        ending = open_parts & (left <= shares)
        if not ending.any():
            counts[open_parts] = shares[open_parts]
            break
        counts[ending] = left[ending].astype(np.int64)
        open_parts &= ~ending
    return counts


def fingerprint(description: dict[str, object]) -> str:
    """Return a short digest of a description, independent of the order of its keys."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def list_changes(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """Return what differs between two descriptions, as `KEY: OLD -> NEW`."""
    return [
        f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def _key(seed: int, *purpose: int) -> int:
    return int(hash64(seed, *purpose))
