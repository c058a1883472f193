"""Fills the micro-batches of an optimizer step with examples of given lengths: padded, or packed into rows."""

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

Bin = tuple[list[int], list[int]]
"""One micro-batch: its examples, and the packed row of each."""


def padded_bins(longest: NDArray[np.int64], order: NDArray[np.int64], budget: int, wanted: int) -> list[Bin]:
    """Fill micro-batches with examples of similar length, longest first, each padded to its longest."""
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


def packed_bins(
    longest: NDArray[np.int64], order: NDArray[np.int64], capacity: int, max_rows: int, wanted: int
) -> list[Bin]:
    """Fill rows of `capacity` positions by best fit, longest first; deal at most `max_rows` to a micro-batch."""
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
    num_bins = max(-(-len(members) // max_rows), min(wanted, len(members)))
    bins: list[Bin] = []
    for dealt in np.array_split(np.arange(len(members)), num_bins):
        flat = [(example, row) for row, number in enumerate(dealt) for example in members[number]]
        bins.append(([example for example, _ in flat], [row for _, row in flat]))
    return bins
