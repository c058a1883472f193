"""The plan: the pure function from a number to the example that a run draws at that place.

Example n of a run is (part, epoch, row) by arithmetic alone:

- blocks of `BLOCK` consecutive examples hold every part exactly as often as its weight says, in an order that
  a keyed permutation of the block decides;
- the k-th example of a part is row `permute(k mod rows, key=epoch)` of epoch `k div rows`.

So nothing has to be stored or replayed: any example is found at once, on any rank and in any worker, and
shuffling 10^11 rows needs no memory. `kebyt5_xm.data.steps` says which of them make an optimizer step.

Weights may change within a run: `continued` gives the plan of the rest, where parts go on with what they have left.
"""

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.source import Part
from kebyt5_xm.errors import UserError
from kebyt5_xm.randomness import hash64, permute

BLOCK = 1 << 16
"""Examples in a block. Weights are met exactly to 1/65536, and every part occurs at least once in a block."""

_ORDER, _ROWS = 1, 2  # purposes of a key, so that no two permutations share one


@dataclass(frozen=True)
class Draws:
    """Draws of the plan: parallel arrays of one length, in the order in which they are trained on."""

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
    """The order of a whole run: `parts` are the mixture's parts, `weights` theirs at any positive scale.

    Parts that end after their epochs give their last rows in full; their place is the others' from there on, in
    proportion to their weights.

    A plan that continues another begins at example `begin`. `given` examples of each part came before it, and `left`
    are those (numbered within the part) that they have passed over; they are the part's next ones.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...]
    seed: int
    begin: int = 0
    given: tuple[int, ...] | None = None
    left: tuple[NDArray[np.int64], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("no source gives any training example; add one under data.sources")
        for part, weight in zip(self.parts, self.weights, strict=True):
            if part.num_rows < 1:
                raise UserError(f"'{part.name}' has no training rows; its corpus is shorter than one example")
            if part.epochs is not None and part.epochs < 1:
                raise UserError(f"'{part.name}' has epochs {part.epochs}; expected 1 or more, or null")
            if not weight > 0:
                raise UserError(f"'{part.name}' has weight {weight}; expected more than 0 (or leave it out)")

    @cached_property
    def phases(self) -> "list[Phase]":
        """The runs of blocks of one composition. There is one unless parts end after their epochs."""
        weights = np.asarray(self.weights, dtype=np.float64)
        limits = np.asarray(
            [np.inf if part.epochs is None else float(part.num_rows * part.epochs) for part in self.parts]
        )
        used = np.asarray(self.given or [0] * len(weights), dtype=np.int64)
        phases: list[Phase] = []
        block = 0
        while (left := np.subtract(limits, used, dtype=np.float64)).any():
            counts = _shares(np.where(left > 0, weights, 0.0), BLOCK)
            ending = np.isfinite(left) & (left > 0)
            whole = int((left[ending] // counts[ending]).min()) if ending.any() else None
            if whole is None:
                phases.append(Phase(block, counts, used))
                break
            if whole:
                phases.append(Phase(block, counts, used))
            else:  # some part ends inside this block; the others fill its place
                counts, whole = _last_block(weights, left), 1
                phases.append(Phase(block, counts, used))
            used = used + whole * counts
            block += whole
        return phases

    @cached_property
    def num_examples(self) -> int | None:
        """How many examples there are, or None if a part is repeated for ever."""
        if any(part.epochs is None for part in self.parts):
            return None
        return sum(part.num_rows * (part.epochs or 0) for part in self.parts)

    def rows(self, start: int, stop: int) -> Draws:
        """Return the examples `start` to `stop` (exclusive) of the run, as far as there are any."""
        if self.num_examples is not None:
            stop = max(start, min(stop, self.num_examples))
        index = np.arange(start, stop, dtype=np.int64)
        part, nth = self._numbered(index)
        num_rows = np.asarray([p.num_rows for p in self.parts], dtype=np.int64)[part]
        epoch, offset = np.divmod(nth, num_rows)
        row = np.empty_like(offset)
        for p, e in {(int(p), int(e)) for p, e in zip(part, epoch, strict=True)}:
            here = (part == p) & (epoch == e)
            row[here] = permute(offset[here], self.parts[p].num_rows, _key(self.seed, _ROWS, p, e))
        return Draws(part, epoch, row, index.astype(np.uint64))

    def _numbered(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the part of each example and its number within the part."""
        part, nth = self._places(index)
        for p, (given, left) in enumerate(zip(self.given or (), self.left, strict=True)):
            here = (part == p) & (nth < given + len(left))
            nth[here] = left[nth[here] - given]
        return part, nth

    def _places(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the part of each example and its place among the part's, as if none had been passed over."""
        block, place = np.divmod(index - self.begin, BLOCK)
        part, nth = np.empty_like(place), np.empty_like(place)
        for number in np.unique(block):
            here = block == number
            composition = self._phase(int(number))
            size = int(composition.counts.sum())  # less than BLOCK in the last block of a run that ends
            key = _key(self.seed, _ORDER, int(number), *([self.begin] if self.begin else []))
            drawn = permute(place[here], size, key)
            ends = np.cumsum(composition.counts)
            part[here] = np.searchsorted(ends, drawn, side="right")
            before = composition.before(int(number))
            nth[here] = before[part[here]] + drawn - (ends - composition.counts)[part[here]]
        return part, nth

    def _phase(self, block: int) -> "Phase":
        begins = [phase.block for phase in self.phases]
        return self.phases[int(np.searchsorted(begins, block, side="right")) - 1]

    def shares(self, index: int) -> NDArray[np.float64]:
        """Return each part's share of the examples in the block that example `index` is in; zeros after the last."""
        if not self.phases:
            return np.zeros(len(self.parts))
        counts = self._phase((index - self.begin) // BLOCK).counts
        return counts / counts.sum()

    def drawn(self, index: int) -> NDArray[np.int64]:
        """Return how many examples of each part there are before example `index`, in the whole run."""
        if not self.phases:  # it continues a plan that had come to its end
            return np.asarray(self.given, dtype=np.int64)
        block = (index - self.begin) // BLOCK
        return self._phase(block).before(block) + self.count(self.begin + block * BLOCK, index)

    def count(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return how many of the examples `start` to `stop` (exclusive) are of each part."""
        part, _ = self._places(np.arange(start, stop, dtype=np.int64))
        return np.bincount(part, minlength=len(self.parts))

    def continued(self, index: int, weights: tuple[float, ...]) -> "Plan":
        """Return the plan that goes on from example `index` with other weights.

        Blocks begin anew at `index`. Every part goes on with the rows that it still has, first those of the block
        that is broken off, so that none is left out or given twice.
        """
        block = (index - self.begin) // BLOCK
        end = self.begin + (block + 1) * BLOCK
        if self.num_examples is not None:
            end = max(index, min(end, self.num_examples))
        part, nth = self._numbered(np.arange(index, end, dtype=np.int64))
        left = [nth[part == p] for p in range(len(self.parts))]
        if self.left and self.phases:  # what an earlier break has left beyond this block
            phase = self._phase(block)
            passed = phase.before(block) + phase.counts - np.asarray(self.given)
            left = [np.append(new, old[p:]) for new, old, p in zip(left, self.left, passed, strict=True)]
        given = tuple(self.drawn(index).tolist())
        return replace(self, weights=weights, begin=index, given=given, left=tuple(left))

    def description(self) -> dict[str, object]:
        """Return, as plain values, everything that decides the order."""
        total = sum(self.weights)
        return {
            "seed": self.seed,
            **{
                f"parts.{part.name}": f"{part.num_rows} rows, share {weight / total:.6f}, {part.fingerprint}"
                + ("" if part.epochs is None else f", {part.epochs} epochs")
                for part, weight in zip(self.parts, self.weights, strict=True)
            },
        }


@dataclass(frozen=True)
class Phase:
    """Blocks of one composition, from `block` on. Arrays have an entry a part."""

    block: int
    counts: NDArray[np.int64]  # examples of a block
    used: NDArray[np.int64]  # examples given before

    def before(self, block: int) -> NDArray[np.int64]:
        """Return how many examples of each part come before `block`."""
        return self.used + (block - self.block) * self.counts


def _shares(weights: NDArray[np.float64], size: int) -> NDArray[np.int64]:
    """Return how many of `size` examples each part gets: the largest remainders of the exact shares.

    A part of positive weight gets one at least, one of weight zero none.
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


def _last_block(weights: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the counts of a block in which at least one part has fewer examples `left` than its share."""
    counts = np.zeros(len(weights), dtype=np.int64)
    open_parts = left > 0
    while open_parts.any():
        size = BLOCK - counts[~open_parts].sum()
        shares = _shares(np.where(open_parts, weights, 0.0), int(size))
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


def _key(seed: int, *purpose: int) -> int:
    return int(hash64(seed, *purpose))
