"""Answers that must be right as a whole."""

from collections.abc import Sequence
from typing import Literal

from kebyt5_xm.metrics.fit import chosen, need_content, need_labels
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import composed, klue, korquad

Normalization = Literal["none", "korquad", "klue"]
_NORMAL = {"none": composed, "korquad": korquad, "klue": klue}


class ExactMatch(MeanMetric):
    """Share of the answers that equal a reference, Unicode composed (NFC) and without spaces around them.

    Args:
        normalization: what else is done to both before: `none`, or what the official scripts of KorQuAD 1.0
            (`korquad`) or KLUE-MRC (`klue`) do.
    """

    def __init__(self, normalization: Normalization = "none"):
        self.normalization = chosen("normalization", normalization, Normalization)

    @property
    def name(self) -> str:
        return "exact_match" if self.normalization == "none" else f"exact_match_{self.normalization}"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        if self.normalization != "klue":  # KLUE-MRC has questions without an answer
            need_content("ExactMatch", references, _NORMAL[self.normalization], "a character")

    def figure(self, answer: Answer) -> float:
        normal = _NORMAL[self.normalization]
        return float(normal(answer.text) in map(normal, answer.references))


class Accuracy(MeanMetric):
    """Share of the answers that are the right label; for a source with `labels`."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_labels("Accuracy", labels, "ExactMatch")

    def figure(self, answer: Answer) -> float:
        return float(composed(answer.text) in map(composed, answer.references))
