"""What a metric is: figures of each answer by itself, and one value of any of their sums.

Kept apart so, a bootstrap needs no second look at the texts: a resample is a sum of the same figures with other
weights. A metric of which that is not true (a rank correlation) is a `SetMetric`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 2**22
"""Counts that are held as floats at once, 32 MiB."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote for one example, and what would have been right.

    `references` are all texts that would have been right, at least one. `probabilities` are those of each label,
    where the source has labels.
    """

    text: str
    references: tuple[str, ...]
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Metric(ABC):
    """A figure of merit over a set of answers: an entry of `metrics` of a source in a recipe.

    A metric is given all answers of a set at once, those of every rank, each example once; it holds its options
    alone, so it can be pickled.
    """

    higher_is_better = True

    @property
    def name(self) -> str:
        """The word in logs and reports, such as `character_error_rate`: the class's name unless overridden.

        Options that change the figure are part of it, so that two of a kind can stand side by side.
        """
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def signature(self, answers: Sequence[Answer]) -> str:
        """Return how the figure was computed, for a report; empty where the name says it all."""
        return ""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:  # noqa: B027
        """Raise `UserError` if the metric does not fit a source, before anything is trained.

        Args:
            references: of each of some held-out examples.
            labels: the words that the source's answers are limited to, or None where they are free.
        """

    @abstractmethod
    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return figures [n, k] of each answer by itself, of which `value` needs only the sum."""

    @abstractmethod
    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the metric [...] of sums [..., k] of figures; NaN where it is not defined."""

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
    """The mean of one figure an answer."""

    @abstractmethod
    def figure(self, answer: Answer) -> float:
        """Return the figure of one answer."""

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        figures = np.asarray([self.figure(answer) for answer in answers], dtype=np.float64)
        return np.stack([figures, np.ones(len(answers))], axis=1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


class SetMetric(Metric):
    """A metric that is no function of sums: it is computed anew on the figures of each resample."""

    @abstractmethod
    def of_set(self, figures: NDArray[np.float64]) -> float:
        """Return the metric of figures [n, k], a row an answer; NaN where it is not defined."""

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        raise TypeError(f"{type(self).__name__} is no function of sums; use `resampled`")

    def resampled(self, answers: Sequence[Answer], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        figures = self.statistics(answers)
        return np.asarray([self.of_set(np.repeat(figures, often, axis=0)) for often in counts])


def ratio(dividend: ArrayLike, divisor: ArrayLike) -> NDArray[np.float64]:
    """Return the quotient of two arrays of one shape, NaN where the divisor is zero."""
    dividend, divisor = np.asarray(dividend, np.float64), np.asarray(divisor, np.float64)
    return np.divide(dividend, divisor, out=np.full(divisor.shape, np.nan), where=divisor != 0)


def f1(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the F1 [...] of hits, false alarms and misses [..., 3]; NaN where there are none."""
    hits, false_alarms, misses = np.moveaxis(outcomes, -1, 0)
    return ratio(2 * hits, 2 * hits + false_alarms + misses)
