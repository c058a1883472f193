"""What a metric is: figures of each answer by itself, and one value of any of their sums.

Kept apart so, a bootstrap needs no second look at the texts: a resample is a sum of the same figures with other
weights. A metric of which that is not true (a rank correlation) overrides `resampled`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


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
    """A figure of merit over a set of answers: an entry of `metrics` of a source in a recipe."""

    higher_is_better = True

    @property
    def name(self) -> str:
        """The word in logs and reports, such as `character_error_rate`: the class's name unless overridden."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

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
        return self.value(counts.astype(np.float64) @ self.statistics(answers))

    def __call__(self, answers: Sequence[Answer]) -> float:
        """Return the metric of the answers; NaN for none."""
        if not answers:
            return float("nan")
        return float(self.resampled(answers, np.ones((1, len(answers)), dtype=np.int64))[0])
