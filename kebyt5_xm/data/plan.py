"""The plan: the pure function from a step to the examples of its global batch.

Example n of a run is (part, epoch, row) by arithmetic alone:

- blocks of `BLOCK` consecutive examples hold every part exactly as often as its weight says, in an order that
  a keyed permutation of the block decides;
- the k-th example of a part is row `permute(k mod rows, key=epoch)` of epoch `k div rows`.

So nothing has to be stored or replayed: any step is found at once, on any rank and in any worker, and
shuffling 10^11 rows needs no memory.
"""

import hashlib
import json
from dataclasses import dataclass
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
    """The order of a whole run.

    `parts` are the mixture's parts with their final weights (any positive scale); `global_batch_size` is the
    number of examples of one optimizer step over all ranks and accumulated micro-batches.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...]
    seed: int
    global_batch_size: int

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("no source gives any training example; add one under data.sources")
        if self.global_batch_size < 1:
            raise UserError(f"global_batch_size is {self.global_batch_size}; expected at least 1")
        for part, weight in zip(self.parts, self.weights, strict=True):
            if part.num_rows < 1:
                raise UserError(f"'{part.name}' has no training rows; its corpus is shorter than one example")
            if not weight > 0:
                raise UserError(f"'{part.name}' has weight {weight}; expected more than 0 (or leave it out)")

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many examples of a block each part gets: the largest remainders of the exact shares."""
        weights = np.asarray(self.weights, dtype=np.float64)
        exact = weights / weights.sum() * BLOCK
        counts = np.maximum(np.floor(exact).astype(np.int64), 1)
        while (missing := BLOCK - counts.sum()) != 0:
            gap = exact - counts
            if missing > 0:
                counts[np.argsort(-gap, kind="stable")[:missing]] += 1
            else:
                counts[np.argmin(np.where(counts > 1, gap, np.inf))] -= 1
        return counts

    def rows(self, start: int, stop: int) -> Draws:
        """Return the examples `start` to `stop` (exclusive) of the run."""
        index = np.arange(start, stop, dtype=np.int64)
        block, place = np.divmod(index, BLOCK)
        drawn = np.empty_like(place)
        for number in np.unique(block):
            here = block == number
            drawn[here] = permute(place[here], BLOCK, _key(self.seed, _ORDER, int(number)))
        ends = np.cumsum(self.counts)
        part = np.searchsorted(ends, drawn, side="right").astype(np.int64)
        nth = block * self.counts[part] + drawn - (ends - self.counts)[part]
        num_rows = np.asarray([p.num_rows for p in self.parts], dtype=np.int64)[part]
        epoch, offset = np.divmod(nth, num_rows)
        row = np.empty_like(offset)
        for p, e in {(int(p), int(e)) for p, e in zip(part, epoch, strict=True)}:
            here = (part == p) & (epoch == e)
            row[here] = permute(offset[here], self.parts[p].num_rows, _key(self.seed, _ROWS, p, e))
        return Draws(part, epoch, row, index.astype(np.uint64))

    def step(self, step: int) -> Draws:
        """Return the global batch of optimizer step `step`, counted from zero."""
        return self.rows(step * self.global_batch_size, (step + 1) * self.global_batch_size)

    def description(self) -> dict[str, object]:
        """Return, as plain values, everything that decides the order."""
        total = sum(self.weights)
        return {
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            **{
                f"parts.{part.name}": f"{part.num_rows} rows, share {weight / total:.6f}, {part.fingerprint}"
                for part, weight in zip(self.parts, self.weights, strict=True)
            },
        }


def fingerprint(description: dict[str, object]) -> str:
    """Return a short digest of a description, independent of the order of its keys."""
    text = json.dumps(description, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _key(seed: int, *purpose: int) -> int:
    return int(hash64(seed, *purpose))
