"""Metrics of labels: accuracy, F1, and the area under precision-recall curves."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.checks import require_labels
from kebyt5_xm.metrics.metric import Answer, MeanMetric, Metric, SetMetric, f1, ratio
from kebyt5_xm.metrics.normalization import compose_unicode


class Accuracy(MeanMetric):
    """Share of the answers that equal a reference label; for a source with `labels`."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_labels("Accuracy", labels, "ExactMatch")

    def figure(self, answer: Answer) -> float:
        return float(compose_unicode(answer.text) in map(compose_unicode, answer.references))


class MacroF1(Metric):
    """Mean F1 of the labels that occur in references or answers, as in scikit-learn.

    An answer that is not among the labels of its `probabilities` is a miss of its reference, and not a label itself.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_labels("MacroF1", labels, "ExactMatch")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        return _outcomes(answers).reshape(len(answers), -1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        by_label = sums.reshape(*sums.shape[:-1], -1, 3)
        occurs = by_label.any(-1)
        return ratio(np.where(occurs, f1(by_label), 0).sum(-1), occurs.sum(-1))


class MicroF1(Metric):
    """F1 of the summed outcomes of all labels; equals the accuracy if `ignore` is empty.

    Args:
        ignore: negative labels, such as `no_relation` of KLUE-RE. An ignored label as answer to another label is a
            miss; another label as answer to an ignored one is a false alarm.
    """

    def __init__(self, ignore: list[str] | None = None):
        self.ignore = [compose_unicode(label) for label in ignore or []]

    @property
    def name(self) -> str:
        without = "_".join(re.sub(r"\W+", "_", label) for label in self.ignore)
        return f"micro_f1_without_{without}" if without else "micro_f1"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_labels("MicroF1", labels, "ExactMatch")
        assert labels is not None
        known = [compose_unicode(label) for label in labels]
        for label in self.ignore:
            if label not in known:
                raise UserError(
                    f"MicroF1 ignores '{label}', expected one of the {len(known)} labels"
                    f"{did_you_mean(label, known)}"
                )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        return _outcomes(answers, self.ignore).sum(1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return f1(sums)


class AUPRC(SetMetric):
    """Mean area under the precision-recall curves of the labels that occur in the references.

    Points are joined by straight lines from (recall 0, precision 1), as in scikit-learn's `auc` of its
    `precision_recall_curve` and so in the official figure of KLUE-RE (Park et al. 2021, arXiv 2105.09680).
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_labels("AUPRC", labels, "ExactMatch")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2 * labels]: the probability of each label, then 1 for each label that is right."""
        labels = sorted({label for answer in answers for label in answer.probabilities})
        for row, answer in enumerate(answers, 1):
            if answer.probabilities.keys() != set(labels):
                raise UserError(
                    f"AUPRC needs the probability of every label, found {len(answer.probabilities)} of "
                    f"{len(labels)} in answer {row}; use a source with `labels`, with the same list for all answers"
                )
        right_sets = [set(map(compose_unicode, answer.references)) for answer in answers]
        chances = [[answer.probabilities[label] for label in labels] for answer in answers]
        right = [[compose_unicode(label) in texts for label in labels] for texts in right_sets]
        return np.concatenate([np.asarray(chances), np.asarray(right)], axis=1, dtype=np.float64)

    def of_set(self, figures: NDArray[np.float64]) -> float:
        return float(self._areas(figures, np.ones((1, len(figures)), dtype=np.int64))[0])

    def resampled(self, answers: Sequence[Answer], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._areas(self.statistics(answers), counts)

    def _areas(self, figures: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the metric [r] of resamples; answers are sorted once, and a resample is a weight for each answer."""
        chances, right = np.split(figures, 2, axis=1)
        order = np.argsort(-chances, axis=0, kind="stable")
        chances, right = np.take_along_axis(chances, order, 0), np.take_along_axis(right, order, 0)
        # A threshold includes all answers of equal probability, so each uses the position of the last of them.
        places = np.broadcast_to(np.arange(len(chances))[:, None], chances.shape)
        is_last = np.vstack([chances[1:] != chances[:-1], np.ones((1, chances.shape[1]), bool)])
        last = np.where(is_last, places, len(chances))
        last = np.minimum.accumulate(last[::-1])[::-1]
        means = []
        for weights in counts:
            weight = weights[order].astype(np.float64)
            total = np.take_along_axis(weight.cumsum(0), last, 0)
            hits = np.take_along_axis((weight * right).cumsum(0), last, 0)
            precision = np.where(total > 0, ratio(hits, total), 1.0)
            recall = ratio(hits, np.broadcast_to(hits[-1], hits.shape))
            heights = (precision + np.vstack([np.ones_like(precision[:1]), precision[:-1]])) / 2
            areas = (np.diff(recall, axis=0, prepend=0) * heights).sum(0)
            found = areas[hits[-1] > 0]
            means.append(found.mean() if len(found) else np.nan)
        return np.asarray(means)


def _outcomes(answers: Sequence[Answer], ignore: Sequence[str] = ()) -> NDArray[np.float64]:
    """Return [n, labels, 3]: hits, false alarms and misses of each label in each answer.

    Of several references, the one that equals the answer counts, else the first.
    """
    pairs = []
    for answer in answers:
        text = compose_unicode(answer.text)
        references = [compose_unicode(reference) for reference in answer.references]
        right = text if text in references else references[0]
        is_label = not answer.probabilities or text in map(compose_unicode, answer.probabilities)
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
