"""The share of answers that are not of the expected kind."""

from collections.abc import Sequence
from typing import Literal

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.checks import check_choice
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import compose_unicode, read_number, read_numbers

Expected = Literal["text", "number", "label"]
REPLACEMENT = "\ufffd"
"""`kebyt5_xm.vocabulary.decode` puts it in place of bytes that are not valid UTF-8."""


class Malformed(MeanMetric):
    """Share of the answers that are not what was expected.

    Args:
        expected: `text`, valid UTF-8; `number`, such as 3.5; or `label`, one of `labels`.
        labels: the labels, for a source without labels. A source with labels gives answers among its labels only.
    """

    higher_is_better = False

    def __init__(self, expected: Expected = "text", labels: list[str] | None = None):
        self.expected: Expected = check_choice("expected", expected, Expected)
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
            read_numbers("Malformed", references)
        if self.expected != "label":
            return
        known = self.labels or labels
        if known is None:
            raise UserError("Malformed expects labels, found none; list them as its `labels`")
        known = set(map(compose_unicode, known))
        for row, texts in enumerate(references, 1):
            for text in texts:
                if compose_unicode(text) not in known:
                    raise UserError(
                        f"Malformed found {text[:60]!r} as reference of held-out example {row}, expected one of "
                        f"the {len(known)} labels; correct `labels`"
                    )

    def figure(self, answer: Answer) -> float:
        if self.expected == "number":
            return float(read_number(answer.text) is None)
        if self.expected == "label":
            return float(
                compose_unicode(answer.text) not in map(compose_unicode, self.labels or answer.probabilities)
            )
        return float(REPLACEMENT in answer.text)
