"""Answers that must be right as a whole."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.metric import Answer, Metric


class ExactMatch(Metric):
    """Share of the answers that equal a reference, Unicode composed (NFC) and without spaces around them."""

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        right = [_plain(a.text) in {_plain(reference) for reference in a.references} for a in answers]
        return np.stack([np.asarray(right, dtype=np.float64), np.ones(len(answers))], axis=1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return sums[..., 0] / sums[..., 1]


class Accuracy(ExactMatch):
    """Share of the answers that are the right label; for a source with `labels`."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        if labels is None:
            raise UserError(
                "Accuracy needs a source with labels, found none; list them under `labels`, or use ExactMatch"
            )


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
