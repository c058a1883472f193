"""The two baselines that look at the input: logistic regression, and the nearest training example."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Values of scikit-learn's C, the inverse of the penalty on weights, for inputs of about unit length."""
FOLDS = 3
CHOSEN_ON = 2000
"""Training rows by which C is chosen. Our own choice: more hardly change it."""
ITERATIONS = 200
AT_ONCE = 256
"""Questions compared with all training rows at a time."""


class Linear:
    """Logistic regression; C by cross-validation on the training rows, the smallest of equal ones.

    Args:
        rows: [n, inputs].
        targets: the class of each row.
        inputs: a number for each row; rows of the same number stay in one fold, since they have the same input.
    """

    def __init__(self, rows: Any, targets: NDArray[np.object_], inputs: NDArray[np.int64]) -> None:
        self.classes = sorted(set(targets))
        self._model = None
        if len(self.classes) > 1:
            self._model = _fit(rows, targets, _choose_strength(rows, targets, inputs))
            self.classes = list(self._model.classes_)

    def probabilities(self, rows: Any) -> NDArray[np.float64]:
        """Return [questions, classes]."""
        if self._model is None:
            return np.ones((rows.shape[0], 1))
        return self._model.predict_proba(rows)


def nearest(training: Any, rows: Any) -> NDArray[np.int64]:
    """Return the number of the training row with the largest cosine for each row, the first of equal ones."""
    from sklearn.preprocessing import normalize

    known: Any = normalize(training)
    asked: Any = normalize(rows)
    found = [np.empty(0, np.int64)]
    for start in range(0, asked.shape[0], AT_ONCE):
        cosines = asked[start : start + AT_ONCE] @ known.T
        dense = cosines if isinstance(cosines, np.ndarray) else cosines.toarray()
        found.append(dense.round(9).argmax(1))  # rounded, so that equal rows are equal on every machine
    return np.concatenate(found)


def _choose_strength(rows: Any, targets: NDArray[np.object_], inputs: NDArray[np.int64]) -> float:
    chosen = np.random.default_rng(0).permutation(len(targets))[:CHOSEN_ON]
    rows, targets = rows[chosen], targets[chosen]
    folds = _folds(targets, inputs[chosen])
    right = dict.fromkeys(STRENGTHS, 0)
    for fold in range(FOLDS):
        held_out = folds == fold
        if len(set(targets[~held_out])) < 2 or not held_out.any():
            continue
        for strength in STRENGTHS:
            model = _fit(rows[~held_out], targets[~held_out], strength)
            right[strength] += int((model.predict(rows[held_out]) == targets[held_out]).sum())
    return max(STRENGTHS, key=lambda strength: (right[strength], -strength))


def _folds(targets: NDArray[np.object_], inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the fold of each row: every class is spread over all folds, and equal inputs are in one fold."""
    _, first, number = np.unique(inputs, return_index=True, return_inverse=True)
    folds = np.empty(len(first), np.int64)
    folds[np.argsort(targets[first], kind="stable")] = np.arange(len(first)) % FOLDS
    return folds[number]


def _fit(rows: Any, targets: NDArray[np.object_], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough after so many iterations
        return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(rows, targets)
