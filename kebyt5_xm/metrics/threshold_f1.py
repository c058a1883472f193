"""F1 of numbers as a yes-or-no question: is it at least so much?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.label_f1 import f1
from kebyt5_xm.metrics.metric import Answer, Metric
from kebyt5_xm.metrics.numbers_in_text import number, numbers


class ThresholdF1(Metric):
    """F1 of the answers that are at least `threshold`, against the references that are.

    With 3 it is the official F1 of KLUE-STS (Park et al. 2021, arXiv 2105.09680). An answer that is no number is
    wrong: a miss, or a false alarm.

    Args:
        threshold: the least number that is positive.
    """

    def __init__(self, threshold: float = 3.0):
        self.threshold = threshold

    @property
    def name(self) -> str:
        return f"f1_at_{self.threshold:g}".replace(".", "_").replace("-", "minus_")

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        positive = [value >= self.threshold for value in numbers("ThresholdF1", references)]
        if positive and not any(positive):
            raise UserError(
                f"ThresholdF1 found no reference of at least {self.threshold:g} in {len(positive)} held-out "
                "examples, so there is nothing to be found; give the `threshold` in the references' unit"
            )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 3]: hits, false alarms and misses."""
        outcomes = np.zeros((len(answers), 3))
        references = numbers("ThresholdF1", [answer.references for answer in answers])
        for row, answer, reference in zip(outcomes, answers, references, strict=True):
            right, value = reference >= self.threshold, number(answer.text)
            written = not right if value is None else value >= self.threshold
            row[:] = written and right, written and not right, right and not written
        return outcomes

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return f1(sums)
