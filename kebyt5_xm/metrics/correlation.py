"""Correlation of numbers that were written with numbers that would have been right."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.metric import Answer, SetMetric
from kebyt5_xm.metrics.numbers_in_text import number, numbers


class Pearson(SetMetric):
    """Pearson's correlation, -1 to 1.

    An answer that is no number counts as the end of the references' range that is farther from its own reference:
    no number within the range would have been further off. Answers that are all alike have no correlation: 0.
    References that are all alike leave none to be found: NaN.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        found = numbers(type(self).__name__, references)
        if found and len(set(found)) == 1:
            raise UserError(
                f"{type(self).__name__} needs references that differ, found {found[0]:g} in all "
                f"{len(found)} held-out examples; use ExactMatch"
            )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2]: the number written, NaN where it is none, and the right one."""
        right = numbers(type(self).__name__, [answer.references for answer in answers])
        written = [number(answer.text) for answer in answers]
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
        """Return what is correlated of the numbers."""
        return values


class Spearman(Pearson):
    """Spearman's rank correlation, -1 to 1: Pearson's of the ranks, equal numbers at the mean of their ranks.

    Answers that are no numbers, and sets that are all alike, as for `Pearson`.
    """

    def scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.stats import rankdata

        return rankdata(values)
