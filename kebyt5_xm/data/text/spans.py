"""Draws the removed spans of a chunk: random segmentations, alignment to characters, masks of runs.

Shapes: n chunks, k spans per chunk, t totals to cut.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.randomness import hash64, map_to_range

Boundaries = Literal["byte", "character"]


class Margins(NamedTuple):
    """The limits that a kind of boundaries sets, in bytes."""

    min_span: int
    min_gap: int
    min_surplus: int
    """Lower bound of removed bytes minus requested bytes in a chunk; never above 0."""
    max_surplus: int
    """Upper bound of the same difference."""


# A UTF-8 character has up to 4 bytes (RFC 3629); `move_to_characters` explains the numbers that follow from that.
MARGINS: dict[Boundaries, Margins] = {"byte": Margins(1, 1, 0, 0), "character": Margins(4, 7, -1, 2)}


def draw_segments(
    totals: NDArray[np.int64],
    least: NDArray[np.int64],
    parts: int,
    seed: int,
    index: NDArray[np.integer],
) -> NDArray[np.int64]:
    """Cut each of `totals` [t] into `parts` of at least `least` [t], uniformly among all ways: [n, t, parts].

    With `least` 1 the distribution is that of `_random_segmentation` in t5 `preprocessors.py`: parts - 1 distinct
    cuts among the places between items. The cuts are drawn by Floyd's algorithm (Bentley and Floyd, "A sample of
    brilliance", 1987) for all rows at once: draw j is uniform over the first places - parts + 2 + j places; if it
    repeats an earlier draw, it becomes the last of these places. Row i depends on seed and index[i] alone.
    """
    places = totals - least * parts + parts - 1  # [t], after reserving `least` - 1 items for every part
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


def move_to_characters(
    chunks: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends [n, k] moved to the starts of characters; the last span ends at the chunk's end.

    Characters have up to 4 bytes, so one of the offsets p, p + 1, p - 1 and p + 2 is the start of a character. The
    start of a span moves back by up to 3 bytes. Its end moves to the character start nearest to the span's start plus
    its length minus the surplus removed by earlier spans, which keeps the surplus within -1 to +2. The last span
    compensates the surplus with its start. A span of 4 bytes or more stays non-empty, because its end is searched at
    least 2 bytes after its start; a gap of 7 bytes stays non-empty, because it loses at most 3 bytes at either end.

    Bytes that are not UTF-8 also form units of up to 4 bytes, so all of this holds for any chunk. A character cut by
    an end of the chunk is one unit.
    """
    num_rows, length = chunks.shape
    inside = chunks.view(np.int8) < -64  # continuation bytes, 0x80 to 0xBF
    begins = ~inside
    # A fourth continuation byte in a row belongs to no character and begins its own unit. (No offset before 4 is
    # searched, so the start of the chunk's first unit does not matter.)
    begins[:, 3:] |= inside[:, 3:] & inside[:, 2:-1] & inside[:, 1:-2] & inside[:, :-3]
    begins = begins.reshape(-1)
    row = np.arange(0, num_rows * length, length)

    def move(at: NDArray[np.int64], row: NDArray[np.int64], steps: tuple[int, ...]) -> NDArray[np.int64]:
        """Move by the first of the steps that reaches a character start; the last step needs no check."""
        moved = at + steps[-1]
        for step in reversed(steps[:-1]):
            np.copyto(moved, at + step, where=begins[row + at + step])
        return moved

    lengths = ends - starts
    starts, ends = starts.copy(), ends.copy()
    starts[:, :-1] = move(starts[:, :-1], row[:, None], (0, -1, -2, -3))
    surplus = np.zeros(num_rows, dtype=np.int64)
    for j in range(starts.shape[1] - 1):
        ideal = starts[:, j] + lengths[:, j] - surplus
        ends[:, j] = move(ideal, row, (0, 1, -1, 2))
        surplus = ends[:, j] - ideal
    starts[:, -1] = move(length - lengths[:, -1] + surplus, row, (0, -1, 1, -2))
    return starts, ends


def make_run_mask(
    keep: NDArray[np.int64], skip: NDArray[np.int64], length: int, width: int, skip_first: bool = False
) -> NDArray[np.bool_]:
    """Return a mask [n, width] that keeps `length` ids in each row.

    Kept and skipped runs, of lengths `keep` and `skip` [n, k], alternate; then ids are kept up to `length`.
    """
    num_rows, k = keep.shape
    runs = np.empty((num_rows, k + 1, 2), dtype=np.int64)
    runs[:, :k, int(skip_first)] = keep
    runs[:, :k, 1 - int(skip_first)] = skip
    runs[:, k, 0] = length - keep.sum(axis=1)
    runs[:, k, 1] = width - length - skip.sum(axis=1)
    is_kept = np.zeros(runs.shape, dtype=bool)
    is_kept[:, :k, int(skip_first)] = True
    is_kept[:, k, 0] = True
    return np.repeat(is_kept.reshape(-1), runs.reshape(-1)).reshape(num_rows, width)
