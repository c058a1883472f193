"""Bootstrap confidence intervals: the same metric on resamples of the same answers.

Percentile intervals over resamples with replacement (Efron and Tibshirani 1993, chapter 13; for corpus metrics of
text Koehn 2004). Two sets of answers to the same examples are compared with the same resampled examples in both sets.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.metrics.metric import Answer, Metric

RESAMPLES = 1000
"""The usual number (Koehn 2004); the ends of a 95 % interval then rest on 25 resamples each."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Score:
    """A value with its confidence interval, from `low` to `high`."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Return the three as plain values."""
        return asdict(self)


def resample(num_examples: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Return how often each example occurs in each resample: [resamples, examples]."""
    uniform = np.full(num_examples, 1 / num_examples)
    return np.random.default_rng(seed).multinomial(num_examples, uniform, size=resamples)


def score(metric: Metric, answers: Sequence[Answer], counts: NDArray[np.int64] | None = None) -> Score:
    """Return a metric of answers with its interval; NaN without answers."""
    if not answers:
        return Score(float("nan"), float("nan"), float("nan"))
    values = metric.resampled(answers, resample(len(answers)) if counts is None else counts)
    return Score(metric(answers), *_interval(values))


def difference(
    metric: Metric,
    answers: Sequence[Answer],
    others: Sequence[Answer],
    counts: NDArray[np.int64] | None = None,
) -> Score:
    """Return metric(answers) - metric(others) with its interval; both answer the same examples in one order."""
    assert len(answers) == len(others)
    if not answers:
        return Score(float("nan"), float("nan"), float("nan"))
    counts = resample(len(answers)) if counts is None else counts
    values = metric.resampled(answers, counts) - metric.resampled(others, counts)
    return Score(metric(answers) - metric(others), *_interval(values))


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    defined = values[~np.isnan(values)]  # e.g. the F1 of a resample without positives
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)
