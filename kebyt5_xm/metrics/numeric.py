"""Metrics of numeric answers: correlation with the references, and F1 at a threshold."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.metric import Answer, Metric, SetMetric, f1
from kebyt5_xm.metrics.normalization import read_number, read_numbers


class Pearson(SetMetric):
    """Pearson's correlation, -1 to 1.

    An answer that is not a number counts as the smallest or largest reference of the set, whichever is farther from
    its own reference. The correlation is 0 if all answers are equal, and NaN if all references are equal.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        found = read_numbers(type(self).__name__, references)
        if found and len(set(found)) == 1:
            raise UserError(
                f"{type(self).__name__} needs references that differ, found {found[0]:g} in all "
                f"{len(found)} held-out examples; use ExactMatch"
            )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2]: the number in the answer (NaN if it is not a number) and the reference."""
        right = read_numbers(type(self).__name__, [answer.references for answer in answers])
        written = [read_number(answer.text) for answer in answers]
        return np.asarray([written, right], dtype=np.float64).T  # None becomes NaN

    def of_set(self, figures: NDArray[np.float64]) -> float:
        written, right = figures.T
        low, high = right.min(), right.max()
        if not low < high:
            return float("nan")
        written = np.where(np.isnan(written), np.where(right - low > high - right, low, high), written)
        written, right = self.scale(written), self.scale(right)
        if np.ptp(written) == 0:
            return 0.0
        return float(np.corrcoef(written, right)[0, 1])

    def scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values that are correlated: the numbers themselves."""
        return values


class Spearman(Pearson):
    """Spearman's rank correlation, -1 to 1: Pearson's of the ranks; equal numbers get the mean of their ranks.

    Answers that are not numbers, and sets of equal values, are treated as in `Pearson`.
    """

    def scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.stats import rankdata

        return rankdata(values)


class ThresholdF1(Metric):
    """F1 of numbers as a binary decision: a number of at least `threshold` is positive.

    With 3 it is the official F1 of KLUE-STS (Park et al. 2021, arXiv 2105.09680). An answer that is not a number is
    wrong: a miss if the reference is positive, a false alarm otherwise.

    Args:
        threshold: the smallest positive number.
    """

    def __init__(self, threshold: float = 3.0):
        self.threshold = threshold

    @property
    def name(self) -> str:
        return f"f1_at_{self.threshold:g}".replace(".", "_").replace("-", "minus_")

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        positive = [value >= self.threshold for value in read_numbers("ThresholdF1", references)]
        if positive and not any(positive):
            raise UserError(
                f"ThresholdF1 found no reference of at least {self.threshold:g} in {len(positive)} held-out "
                "examples, expected some; give the `threshold` in the references' unit"
            )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 3]: hits, false alarms and misses."""
        outcomes = np.zeros((len(answers), 3))
        references = read_numbers("ThresholdF1", [answer.references for answer in answers])
        for row, answer, reference in zip(outcomes, answers, references, strict=True):
            right, value = reference >= self.threshold, read_number(answer.text)
            written = not right if value is None else value >= self.threshold
            row[:] = written and right, written and not right, right and not written
        return outcomes

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return f1(sums)
