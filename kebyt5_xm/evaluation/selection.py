"""From which confidence on answers may be kept unread, by held-out rows whose right answers are known.

The threshold is the lowest confidence at which the kept held-out rows reach the wanted precision. It is chosen on
these rows, so their precision is a little too good to be true. `expected` therefore counts every row under a
threshold that was chosen without it: in FOLDS folds, as in cross-validation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FOLDS = 10
"""Our own choice, the usual one of cross-validation."""
Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: intervals of 95 %."""


@dataclass(frozen=True)
class Judged:
    """A held-out answer: the model's confidence in it, from 0 to 1, and whether it is right."""

    confidence: float
    right: bool


@dataclass(frozen=True)
class Share:
    """`right` of `total` answers."""

    right: int
    total: int

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.right / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927), which is sound for few answers and for shares near 0 and 1."""
        return wilson(self.right, self.total)


@dataclass(frozen=True)
class Selection:
    """A threshold and what it keeps.

    Attributes:
        threshold: answers of this confidence or more are kept.
        kept: right answers among the kept held-out rows, which also chose the threshold.
        expected: the same, each row under a threshold that was chosen without it.
        of_rows: all held-out rows.
    """

    threshold: float
    kept: Share
    expected: Share
    of_rows: int

    @property
    def share_kept(self) -> float:
        """The share of the held-out rows that is kept."""
        return self.kept.total / self.of_rows


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927, JASA 22, 209-212); (0, 1) of none."""
    if not total:
        return 0.0, 1.0
    share, room = right / total, Z * Z / total
    middle = (share + room / 2) / (1 + room)
    half = Z * math.sqrt(share * (1 - share) / total + room / (4 * total)) / (1 + room)
    return max(0.0, middle - half), min(1.0, middle + half)


def select(judged: Sequence[Judged], precision: float) -> Selection | None:
    """Return the threshold that keeps the most rows with at least `precision`; None if there is none."""
    threshold = _lowest(judged, precision)
    if threshold is None:
        return None
    expected = [0, 0]
    for fold in range(min(FOLDS, len(judged))):
        others = [row for number, row in enumerate(judged) if number % FOLDS != fold]
        found = _lowest(others, precision)
        if found is not None:
            share = _kept(judged[fold::FOLDS], found)
            expected[0] += share.right
            expected[1] += share.total
    return Selection(threshold, _kept(judged, threshold), Share(*expected), len(judged))


def at_threshold(judged: Sequence[Judged], threshold: float) -> Selection:
    """Return what a given threshold keeps; it did not look at the rows, so `expected` equals `kept`."""
    kept = _kept(judged, threshold)
    return Selection(threshold, kept, kept, len(judged))


def best_reachable(judged: Sequence[Judged]) -> Selection:
    """Return the threshold of the highest precision among the rows; of several the one that keeps most."""
    threshold, kept = max(_prefixes(judged), key=lambda found: (found[1].value, found[1].total))
    return Selection(threshold, kept, kept, len(judged))


def _kept(judged: Sequence[Judged], threshold: float) -> Share:
    kept = [row.right for row in judged if row.confidence >= threshold]
    return Share(sum(kept), len(kept))


def _lowest(judged: Sequence[Judged], precision: float) -> float | None:
    """Return the lowest confidence of a row from which on the share of right rows is at least `precision`."""
    found = None
    for threshold, kept in _prefixes(judged):
        if kept.right >= precision * kept.total - 1e-9:  # 0.95 * 20 may be a little more than 19
            found = threshold
    return found


def _prefixes(judged: Sequence[Judged]) -> Iterator[tuple[float, Share]]:
    """Yield every confidence as a threshold, the highest first, with what it keeps."""
    ordered = sorted(judged, key=lambda row: -row.confidence)
    right = 0
    for number, row in enumerate(ordered, 1):
        right += row.right
        if number == len(ordered) or ordered[number].confidence < row.confidence:  # equal ones stay together
            yield row.confidence, Share(right, number)
