"""Answers that are not even of the kind that was asked for."""

from collections.abc import Sequence
from typing import Literal

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.fit import chosen
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import composed, number, numbers

Expected = Literal["text", "number", "label"]
REPLACEMENT = "\ufffd"
"""Stands where the bytes that were written are no UTF-8 (`kebyt5_xm.vocabulary.decode`)."""


class Malformed(MeanMetric):
    """Share of the answers that are not what was expected.

    Args:
        expected: `text`, valid UTF-8; `number`, such as 3.5; or `label`, one of `labels`.
        labels: the labels, where the source has none itself. Where it has, written answers are always among them.
    """

    higher_is_better = False

    def __init__(self, expected: Expected = "text", labels: list[str] | None = None):
        self.expected: Expected = chosen("expected", expected, Expected)
        if labels is not None and expected != "label":
            raise UserError(
                f"found labels, but Malformed expects a {expected}; give `expected: label`, or no labels"
            )
        self.labels = labels

    @property
    def name(self) -> str:
        return "malformed" if self.expected == "text" else f"malformed_{self.expected}s"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        if self.expected == "number":
            numbers("Malformed", references)
        if self.expected != "label":
            return
        known = self.labels or labels
        if known is None:
            raise UserError("Malformed expects labels, found none; list them as its `labels`")
        known = set(map(composed, known))
        for row, texts in enumerate(references, 1):
            for text in texts:
                if composed(text) not in known:
                    raise UserError(
                        f"Malformed found {text[:60]!r} as reference of held-out example {row}, which is none of "
                        f"the {len(known)} labels; correct `labels`"
                    )

    def figure(self, answer: Answer) -> float:
        if self.expected == "number":
            return float(number(answer.text) is None)
        if self.expected == "label":
            return float(composed(answer.text) not in map(composed, self.labels or answer.probabilities))
        return float(REPLACEMENT in answer.text)
