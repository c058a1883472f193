"""The best constant answer: what can be reached without looking at the input."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kebyt5_xm.metrics import Answer, Metric
from kebyt5_xm.metrics.normalization import read_number

CANDIDATES = 20
"""Most frequent targets that are tried, and as many others from the shortest to the longest. Our own choice."""
JUDGED = 500
"""Training rows by which candidates are compared. Our own choice."""


def best_constants(targets: Sequence[str], metrics: Sequence[Metric], labels: Sequence[str]) -> list[Answer]:
    """Return for each metric the answer that is best on these training targets, with their shares as probabilities.

    Candidates are frequent targets, targets of every length, and the mean and median of numbers. The answers have no
    references yet.
    """
    counts = Counter(targets)
    shares = {label: counts[label] / len(targets) for label in labels}
    step = max(1, len(targets) // JUDGED)
    judged = targets[::step][:JUDGED]
    candidates = _candidates(counts)
    found = []
    for metric in metrics:
        sign = 1 if metric.higher_is_better else -1
        values = [
            sign * metric([Answer(candidate, (target,), shares) for target in judged])
            for candidate in candidates
        ]
        best = int(np.argmax(np.nan_to_num(values, nan=-np.inf)))
        found.append(Answer(candidates[best], (), shares))
    return found


def _candidates(counts: Counter[str]) -> list[str]:
    """Return the candidates, most frequent first; those of equal frequency by their text."""
    ordered = sorted(counts, key=lambda text: (-counts[text], text))
    by_length = sorted(counts, key=lambda text: (len(text), text))
    places = np.linspace(0, len(by_length) - 1, min(CANDIDATES, len(by_length))).round().astype(int)
    numbers = [read_number(text) for text in counts.elements()]
    averages = []
    if all(number is not None for number in numbers):
        values = np.asarray(numbers, dtype=np.float64)
        decimals = max(len(text.partition(".")[2]) for text in counts)
        averages = [f"{value:.{min(decimals, 9)}f}" for value in (values.mean(), np.median(values))]
    return list(dict.fromkeys([*ordered[:CANDIDATES], *averages, *(by_length[n] for n in places)]))
