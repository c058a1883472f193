"""What a metric is: statistics of each answer, and one value computed from their sum.

So a bootstrap reads the texts only once: a resample is a sum of the same statistics with other weights. A metric that
cannot be computed from sums (a rank correlation) is a `SetMetric`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 2**22
"""Counts that are converted to floats at once: 32 MiB."""


@dataclass(frozen=True)
class Answer:
    """What a model answered to one example, and the correct answers.

    `references` are all correct texts, at least one. `probabilities` holds the probability of each label if the
    source has labels.
    """

    text: str
    references: tuple[str, ...]
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Metric(ABC):
    """A figure of merit over a set of answers: an entry of `metrics` of a source in a recipe.

    A metric gets all answers of a set at once, from all ranks, each example once. It holds only its options, so it
    can be pickled.
    """

    higher_is_better = True

    @property
    def name(self) -> str:
        """Name in logs and reports, such as `character_error_rate`: the class's name unless overridden.

        Options that change the figure are part of it, so that a source can have a metric twice with other options.
        """
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def signature(self, answers: Sequence[Answer]) -> str:
        """Return how the figure was computed, for a report; empty if the name says everything."""
        return ""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:  # noqa: B027
        """Raise `UserError` if the metric does not fit a source, before anything is trained.

        Args:
            references: the references of some held-out examples.
            labels: the only possible answers of the source, or None if answers are free texts.
        """

    @abstractmethod
    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return statistics [n, k] of each answer by itself; `value` needs only their sum."""

    @abstractmethod
    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [...] of summed statistics [..., k]; NaN where it is not defined."""

    def resampled(self, answers: Sequence[Answer], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the metric [r] of resamples in which answer i occurs `counts[r, i]` times."""
        figures = self.statistics(answers)
        blocks = np.array_split(counts, max(1, counts.size // _BLOCK))
        return np.concatenate([self.value(block.astype(np.float64) @ figures) for block in blocks])

    def __call__(self, answers: Sequence[Answer]) -> float:
        """Return the metric of the answers; NaN for none."""
        if not answers:
            return float("nan")
        return float(self.resampled(answers, np.ones((1, len(answers)), dtype=np.int64))[0])


class MeanMetric(Metric):
    """The mean of one figure per answer."""

    @abstractmethod
    def figure(self, answer: Answer) -> float:
        """Return the figure of one answer."""

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        figures = np.asarray([self.figure(answer) for answer in answers], dtype=np.float64)
        return np.stack([figures, np.ones(len(answers))], axis=1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


class SetMetric(Metric):
    """A metric that cannot be computed from sums, so it is computed from the statistics of each resample."""

    @abstractmethod
    def of_set(self, figures: NDArray[np.float64]) -> float:
        """Return the metric of statistics [n, k], one row per answer; NaN if it is not defined."""

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        raise TypeError(f"{type(self).__name__} cannot be computed from sums; use `resampled`")

    def resampled(self, answers: Sequence[Answer], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        figures = self.statistics(answers)
        return np.asarray([self.of_set(np.repeat(figures, often, axis=0)) for often in counts])


def ratio(dividend: ArrayLike, divisor: ArrayLike) -> NDArray[np.float64]:
    """Return the quotient of two arrays of one shape, NaN where the divisor is zero."""
    dividend, divisor = np.asarray(dividend, np.float64), np.asarray(divisor, np.float64)
    return np.divide(dividend, divisor, out=np.full(divisor.shape, np.nan), where=divisor != 0)


def f1(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the F1 [...] of hits, false alarms and misses [..., 3]; NaN where all three are zero."""
    hits, false_alarms, misses = np.moveaxis(outcomes, -1, 0)
    return ratio(2 * hits, 2 * hits + false_alarms + misses)
