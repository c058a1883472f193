"""What the losses of a range test and of short runs say about the rate; no model and no clock here."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SMOOTHING = 0.9
"""Weight of the past in the average that ends the range test: about the last ten steps. Lightning's range test has
0.98."""
RISE = 0.25
"""The range test ends when the smoothed loss has risen by this share of its fall, or of itself if it never fell."""
SKIPPED = 5
"""First steps whose average is not judged: it rests on too few."""
BELOW_LOWEST = 10.0
"""The first short run has the rate of the lowest loss divided by this, as in fastai: the loss of a range test lags
behind its rate. The runs that follow climb from there."""
WINDOW = 1 / 8
"""Share of the steps over which the curve is averaged, on both sides together."""
RATIO = 2.0
"""Between two rates that are tried."""
MAX_RUNS = 12
"""Rates that are tried at most."""
TIE = 0.002
"""A higher rate must lower the loss by this share: long runs want a lower rate than short ones."""


@dataclass(frozen=True)
class Point:
    """One step of the range test: the rate, the training loss, and the loss averaged over the steps around."""

    rate: float
    loss: float
    smoothed: float


def to_points(rates: Sequence[float], losses: Sequence[float]) -> list[Point]:
    """Return the steps of a range test as points; averages leave out losses that are not finite."""
    reach = round(len(losses) * WINDOW / 2)
    points = []
    for n, (rate, loss) in enumerate(zip(rates, losses, strict=True)):
        side = min(reach, n, len(losses) - 1 - n)  # as many steps on both sides, or the average would lag
        around = [other for other in losses[n - side : n + side + 1] if math.isfinite(other)]
        points.append(Point(rate, loss, sum(around) / len(around) if around else math.nan))
    return points


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential moving averages of the past, corrected for their start as in Adam."""
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
    return (
        smoothed[-1] > min(smoothed) + RISE * fall and smoothed.index(min(smoothed)) < len(smoothed) - SKIPPED
    )


def first_rate(points: Sequence[Point]) -> float:
    """Return the rate of the first short run, below that of the lowest smoothed loss."""
    judged = [point for point in points if math.isfinite(point.smoothed)] or points
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
        if rate > highest or len(found) == MAX_RUNS or (loss := measure(rate)) is None:
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
