"""Where the removed spans of a chunk lie: random segmentations, their move to characters, masks of runs.

Shapes: n chunks, k spans a chunk, t things to cut.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.randomness import hash64, map_to_range

Boundaries = Literal["byte", "character"]


class Margins(NamedTuple):
    """What a kind of boundaries asks of spans and gaps, in bytes."""

    least_span: int
    least_gap: int
    fewest: int
    """The removed bytes of a chunk beyond the number asked for: at least (never above 0) ..."""
    most: int
    """... and at most."""


# A character of UTF-8 is up to 4 bytes (RFC 3629); `to_characters` says how its numbers follow from that.
MARGINS: dict[Boundaries, Margins] = {"byte": Margins(1, 1, 0, 0), "character": Margins(4, 7, -1, 2)}


def segment(
    totals: NDArray[np.int64],
    least: NDArray[np.int64],
    parts: int,
    seed: int,
    index: NDArray[np.integer],
) -> NDArray[np.int64]:
    """Cut each of `totals` [t] into `parts` of `least` [t] or more, uniformly among all ways: [n, t, parts].

    With `least` 1 it has the distribution of `_random_segmentation` in t5 `preprocessors.py`: parts - 1
    distinct cuts among the places between items. They are drawn by Floyd's algorithm (Bentley and Floyd, "A
    sample of brilliance", 1987) for all rows at once: draw j is uniform over the first places - parts + 2 + j
    places, and stands for the last of these where it repeats an earlier draw. Row i depends on seed and
    index[i] alone.
    """
    places = totals - least * parts + parts - 1  # [t], once every part has put `least` - 1 items aside
    last = places - parts + 1 + np.arange(parts - 1)[:, None, None]  # [parts - 1, 1, t]
    draw = np.arange(last.size).reshape(last.shape)
    bits = hash64(seed, np.asarray(index)[:, None], draw)  # [parts - 1, n, t]
    cuts = np.empty((parts + 1, len(index), len(totals)), dtype=np.int64)
    cuts[0] = -1
    cuts[-1] = places
    inner = cuts[1:-1]
    inner[:] = map_to_range(bits, last + 1)
    for j in range(1, parts - 1):
        np.copyto(inner[j], last[j], where=(inner[:j] == inner[j]).any(axis=0))
    inner.sort(axis=0)
    return np.moveaxis(np.diff(cuts, axis=0) + (least - 1), 0, 2)


def to_characters(
    chunks: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends [n, k] moved to where characters begin; the last span ends where the chunk does.

    With units of up to 4 bytes some beginning lies among p, p + 1, p - 1 and p + 2. A start moves back, by up
    to 3 bytes. An end moves to the beginning nearest to its start plus its length less the surplus that the
    spans before have removed; the surplus so stays within -1 to +2. The last span makes up for it with its
    start. A span of 4 bytes or more stays non-empty, since its end is sought at least 2 bytes after its
    start; a gap loses at most 3 bytes at either end, so one of 7 stays non-empty.

    Bytes that are not UTF-8 form units of up to 4 bytes as well, so all of this holds for any chunk; a
    character that the chunk's own ends cut is one unit.
    """
    num_rows, length = chunks.shape
    inside = chunks.view(np.int8) < -64  # continuation bytes, 0x80 to 0xBF
    begins = ~inside
    # A fourth continuation byte in a row belongs to no character and begins a unit of its own. (Nothing is sought
    # before offset 4, so where the chunk's first unit begins does not matter.)
    begins[:, 3:] |= inside[:, 3:] & inside[:, 2:-1] & inside[:, 1:-2] & inside[:, :-3]
    begins = begins.reshape(-1)
    row = np.arange(0, num_rows * length, length)

    def move(at: NDArray[np.int64], row: NDArray[np.int64], steps: tuple[int, ...]) -> NDArray[np.int64]:
        """Take the first of the steps that reaches a beginning; the last one needs no look."""
        moved = at + steps[-1]
        for step in reversed(steps[:-1]):
            np.copyto(moved, at + step, where=begins[row + at + step])
        return moved

    lengths = ends - starts
    starts, ends = starts.copy(), ends.copy()
    starts[:, :-1] = move(starts[:, :-1], row[:, None], (0, -1, -2, -3))
    surplus = np.zeros(num_rows, dtype=np.int64)
    for j in range(starts.shape[1] - 1):
        sought = starts[:, j] + lengths[:, j] - surplus
        ends[:, j] = move(sought, row, (0, 1, -1, 2))
        surplus = ends[:, j] - sought
    starts[:, -1] = move(length - lengths[:, -1] + surplus, row, (0, -1, 1, -2))
    return starts, ends


def run_mask(
    taken: NDArray[np.int64], skipped: NDArray[np.int64], length: int, width: int, skip_first: bool = False
) -> NDArray[np.bool_]:
    """Return which of its `width` ids each row takes, `length` in all: [n, width].

    Runs taken and skipped, of these lengths [n, k], alternate; then what `length` still lacks is taken.
    """
    num_rows, k = taken.shape
    runs = np.empty((num_rows, k + 1, 2), dtype=np.int64)
    runs[:, :k, int(skip_first)] = taken
    runs[:, :k, 1 - int(skip_first)] = skipped
    runs[:, k, 0] = length - taken.sum(axis=1)
    runs[:, k, 1] = width - length - skipped.sum(axis=1)
    is_taken = np.zeros(runs.shape, dtype=bool)
    is_taken[:, :k, int(skip_first)] = True
    is_taken[:, k, 0] = True
    return np.repeat(is_taken.reshape(-1), runs.reshape(-1)).reshape(num_rows, width)
