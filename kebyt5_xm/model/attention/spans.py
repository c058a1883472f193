"""The spans of a pattern: runs of queries that see all keys of one run, and no others.

Packed and padded rows are computed by spans, so nothing hidden is computed and no mask exists (`span_groups`).
Letters in shapes: B rows, T queries, S keys.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor

from kebyt5_xm.model.attention.pattern import Pattern


class Span(NamedTuple):
    """Queries [start, stop) of a row, and the keys [key_start, key_stop) that they see."""

    row: int
    start: int
    stop: int
    key_start: int
    key_stop: int


_found: WeakKeyDictionary[Pattern, list[Span] | None] = WeakKeyDictionary()
"""The spans of a pattern, which all layers share."""


def find_spans(pattern: Pattern, num_rows: int, num_queries: int, num_keys: int) -> list[Span] | None:
    """Return the spans in the order of rows and starts; queries in none of them see no key.

    None if a segment of a row is not one run, or if keys have another order than queries. The first call for a
    pattern waits for the device.
    """
    if pattern not in _found:
        _found[pattern] = _find_spans(pattern, num_rows, num_queries, num_keys)
    return _found[pattern]


def set_spans(pattern: Pattern, spans: Iterable[Span]) -> None:
    """Say what `find_spans` returns for `pattern`, so that it need not wait for the device; nothing if empty."""
    if known := list(spans):
        _found[pattern] = known


def _find_spans(pattern: Pattern, num_rows: int, num_queries: int, num_keys: int) -> list[Span] | None:
    query_runs = _find_runs(pattern.query_segments, num_rows, num_queries)
    key_runs = _find_runs(pattern.key_segments, num_rows, num_keys)
    if query_runs is None or key_runs is None:
        return None
    spans = [
        Span(row, *run, *key_runs[row][segment])
        for row, runs in enumerate(query_runs)
        for segment, run in runs.items()
        if segment in key_runs[row]
    ]
    in_order = all(one.row < other.row or one.key_stop <= other.key_start for one, other in pairwise(spans))
    return spans if in_order else None


def _find_runs(
    segments: Tensor | None, num_rows: int, length: int
) -> list[dict[int, tuple[int, int]]] | None:
    """Return segment -> [start, stop) for each row, without segment 0; None if a segment is not one run."""
    if segments is None:
        return [{1: (0, length)}] * num_rows
    rows = []
    for numbers in segments.cpu().numpy():
        bounds = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), length]
        runs = [(int(numbers[start]), (start, stop)) for start, stop in pairwise(bounds)]
        shown = [run for run in runs if run[0] != 0]
        if len({segment for segment, _ in shown}) < len(shown):
            return None
        rows.append(dict(shown))
    return rows
