"""Area under the precision-recall curve of each label's probability."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.fit import need_labels
from kebyt5_xm.metrics.metric import Answer, SetMetric, ratio
from kebyt5_xm.metrics.normalization import composed


class AUPRC(SetMetric):
    """Mean area under the labels' precision-recall curves, over the labels that are right somewhere.

    Points are joined by straight lines from (recall 0, precision 1), as scikit-learn's `auc` of its
    `precision_recall_curve` has it and the official figure of KLUE-RE with it (Park et al. 2021, arXiv 2105.09680).
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_labels("AUPRC", labels, "ExactMatch")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2 * labels]: the labels' probabilities, then 1 where a label is right."""
        labels = sorted({label for answer in answers for label in answer.probabilities})
        for row, answer in enumerate(answers, 1):
            if answer.probabilities.keys() != set(labels):
                raise UserError(
                    f"AUPRC needs the probability of every label, found {len(answer.probabilities)} of "
                    f"{len(labels)} in answer {row}; judge a source with `labels`, and by one list of them"
                )
        rights = [set(map(composed, answer.references)) for answer in answers]
        chances = [[answer.probabilities[label] for label in labels] for answer in answers]
        right = [[composed(label) in texts for label in labels] for texts in rights]
        return np.concatenate([np.asarray(chances), np.asarray(right)], axis=1, dtype=np.float64)

    def of_set(self, figures: NDArray[np.float64]) -> float:
        return float(self._areas(figures, np.ones((1, len(figures)), dtype=np.int64))[0])

    def resampled(self, answers: Sequence[Answer], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._areas(self.statistics(answers), counts)

    def _areas(self, figures: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the metric [r] of resamples: answers are sorted once, and a resample is weights [n] on them."""
        chances, right = np.split(figures, 2, axis=1)
        order = np.argsort(-chances, axis=0, kind="stable")
        chances, right = np.take_along_axis(chances, order, 0), np.take_along_axis(right, order, 0)
        # A threshold takes in all answers of one probability: each stands at the last of its equals.
        places = np.broadcast_to(np.arange(len(chances))[:, None], chances.shape)
        is_last = np.vstack([chances[1:] != chances[:-1], np.ones((1, chances.shape[1]), bool)])
        last = np.where(is_last, places, len(chances))
        last = np.minimum.accumulate(last[::-1])[::-1]
        means = []
        for weights in counts:
            weight = weights[order].astype(np.float64)
            taken = np.take_along_axis(weight.cumsum(0), last, 0)
            hits = np.take_along_axis((weight * right).cumsum(0), last, 0)
            precision = np.where(taken > 0, ratio(hits, taken), 1.0)
            recall = ratio(hits, np.broadcast_to(hits[-1], hits.shape))
            heights = (precision + np.vstack([np.ones_like(precision[:1]), precision[:-1]])) / 2
            areas = (np.diff(recall, axis=0, prepend=0) * heights).sum(0)
            found = areas[hits[-1] > 0]
            means.append(found.mean() if len(found) else np.nan)
        return np.asarray(means)
