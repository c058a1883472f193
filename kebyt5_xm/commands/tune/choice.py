"""What the losses of a range test and of short runs say about the rate; no model and no clock here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SMOOTHING = 0.9
"""Weight of the past in the smoothed loss: about the last ten steps. Lightning's and fastai's range tests use 0.98."""
RISE = 0.25
"""The range test ends when the smoothed loss has risen by this share of its fall, or of itself if it never fell."""
SKIPPED = 5
"""First steps whose smoothed loss is not judged: it rests on too few."""
BELOW_LOWEST = 4.0
"""The first short run has the rate of the lowest smoothed loss divided by this. Smith 2017 and fastai take up to ten,
since the loss of a range test lags behind its rate; the runs that follow climb from there."""
RATIO = 2.0
"""Between two rates that are tried."""
TIE = 0.002
"""A higher rate must lower the loss by this share: long runs want a lower rate than short ones."""


@dataclass(frozen=True)
class Point:
    """One step of the range test: the rate, the training loss, and the loss smoothed over the steps before."""

    rate: float
    loss: float
    smoothed: float


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving averages, corrected for their start as in Adam."""
    smoothed, average = [], 0.0
    for number, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**number))
    return smoothed


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether the loss rises clearly, or is not finite, so that higher rates need not be tried."""
    if not losses:
        return False
    if not math.isfinite(losses[-1]):
        return True
    smoothed = smooth(losses)[SKIPPED:]
    if not smoothed:
        return False
    fall = max(smoothed[0] - min(smoothed), 0.1 * min(smoothed))
    return smoothed[-1] > min(smoothed) + RISE * fall and smoothed.index(min(smoothed)) < len(smoothed) - SKIPPED


def first_rate(points: Sequence[Point]) -> float:
    """Return the rate of the first short run, below that of the lowest smoothed loss."""
    judged = [point for point in points if math.isfinite(point.smoothed)][SKIPPED:] or points
    return min(judged, key=lambda point: point.smoothed).rate / BELOW_LOWEST


def climb(measure: Callable[[float], float | None], first: float, highest: float) -> dict[float, float]:
    """Return rate -> loss of the rates that were measured: from `first` up, or else down, while the loss falls.

    Args:
        measure: rate -> loss, which may not be finite; None if there is no time for it.
        highest: rate that is not exceeded.
    """
    found: dict[float, float] = {}

    def try_rate(rate: float) -> bool:
        """Return whether the rate could be measured and is the best so far."""
        if rate > highest or (loss := measure(rate)) is None:
            return False
        found[rate] = loss if math.isfinite(loss) else math.inf
        return found[rate] <= min(found.values())

    if not try_rate(min(first, highest)):
        return found
    start = next(iter(found))
    for factor in (RATIO, 1 / RATIO):
        rate = start * factor
        while try_rate(rate):
            rate *= factor
        if len(found) > 2:  # it fell upwards: below the start it is higher
            break
    return found


def best_rate(found: dict[float, float]) -> float:
    """Return the lowest rate whose loss is within `TIE` of the best."""
    best = min(found.values())
    return min(rate for rate, loss in found.items() if loss <= best * (1 + TIE))
