"""Overlap of an answer's characters with the reference's, as KorQuAD scores it."""

from collections import Counter
from collections.abc import Sequence

from kebyt5_xm.metrics.fit import need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import korquad


class CharacterF1(MeanMetric):
    """Mean F1 of the characters, whatever their order, of answer and best reference, spaces left out.

    Texts are normalised as by KorQuAD 1.0's official script (Lim et al. 2019, arXiv 1909.07005).
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("CharacterF1", labels)
        need_content("CharacterF1", references, korquad, "letters or digits")

    def figure(self, answer: Answer) -> float:
        text = Counter(korquad(answer.text).replace(" ", ""))
        return max(_f1(text, Counter(korquad(reference).replace(" ", ""))) for reference in answer.references)


def _f1(text: Counter[str], reference: Counter[str]) -> float:
    common, total = (text & reference).total(), text.total() + reference.total()
    return 2 * common / total if total else 1.0
