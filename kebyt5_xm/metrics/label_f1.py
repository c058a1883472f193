"""F1 over labels, each counted as its own yes-or-no question."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.fit import need_labels
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import composed


class MacroF1(Metric):
    """Mean of the labels' F1 over the labels that occur in references or answers, as in scikit-learn.

    An answer that is no label at all (its probabilities tell) misses its reference and makes no label of its own.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_labels("MacroF1", labels, "ExactMatch")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        return _outcomes(answers).reshape(len(answers), -1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        by_label = sums.reshape(*sums.shape[:-1], -1, 3)
        occurs = by_label.any(-1)
        return ratio(np.where(occurs, f1(by_label), 0).sum(-1), occurs.sum(-1))


class MicroF1(Metric):
    """F1 of the labels' outcomes taken together; with nothing ignored it equals the accuracy.

    Args:
        ignore: labels that are not looked for, such as `no_relation` of KLUE-RE: to answer with one of them where
            there is another is a miss, the reverse a false alarm.
    """

    def __init__(self, ignore: list[str] | None = None):
        self.ignore = [composed(label) for label in ignore or []]

    @property
    def name(self) -> str:
        without = "_".join(re.sub(r"\W+", "_", label) for label in self.ignore)
        return f"micro_f1_without_{without}" if without else "micro_f1"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_labels("MicroF1", labels, "ExactMatch")
        assert labels is not None
        known = [composed(label) for label in labels]
        for label in self.ignore:
            if label not in known:
                raise UserError(
                    f"MicroF1 ignores '{label}', which is none of the {len(known)} labels"
                    f"{did_you_mean(label, known)}"
                )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        return _outcomes(answers, self.ignore).sum(1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return f1(sums)


def f1(outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the F1 [...] of hits, false alarms and misses [..., 3]; NaN where there are none."""
    hits, false_alarms, misses = np.moveaxis(outcomes, -1, 0)
    return ratio(2 * hits, 2 * hits + false_alarms + misses)


def _outcomes(answers: Sequence[Answer], ignore: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return [n, labels, 3]: hits, false alarms and misses of each label in each answer.

    Of several references it is the one that was answered, or else the first.
    """
    pairs = []
    for answer in answers:
        text = composed(answer.text)
        references = [composed(reference) for reference in answer.references]
        right = text if text in references else references[0]
        is_label = not answer.probabilities or text in map(composed, answer.probabilities)
        pairs.append((text if is_label or text == right else None, right))
    labels = sorted({label for pair in pairs for label in pair if label is not None} - set(ignore))
    column = {label: number for number, label in enumerate(labels)}
    outcomes = np.zeros((len(answers), len(labels), 3))
    for row, (text, right) in enumerate(pairs):
        if text == right and text in column:
            outcomes[row, column[text], 0] = 1
        elif text != right:
            if text in column:
                outcomes[row, column[text], 1] = 1
            if right in column:
                outcomes[row, column[right], 2] = 1
    return outcomes
