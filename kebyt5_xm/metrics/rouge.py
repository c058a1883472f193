"""ROUGE: the longest sequence, or string, that answer and reference have in common."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from kebyt5_xm.metrics.fit import chosen, need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import Case, Punctuation, klue, plain, words_or_characters

Tokens = Literal["words", "characters"]


class RougeL(MeanMetric):
    """Mean F1 of the longest common subsequence of answer and best reference (Lin 2004), precision and recall alike.

    Args:
        tokens: `words` between spaces, or `characters`, spaces left out, as for Chinese and Japanese.
        punctuation: `removed` takes Unicode's categories P out first.
        case: `ignored` folds upper and lower case together.
    """

    def __init__(
        self, tokens: Tokens = "words", punctuation: Punctuation = "kept", case: Case = "kept"
    ) -> None:
        self.tokens: Tokens = chosen("tokens", tokens, Tokens)
        self.punctuation: Punctuation = chosen("punctuation", punctuation, Punctuation)
        self.case: Case = chosen("case", case, Case)

    @property
    def name(self) -> str:
        return (
            "rouge_l"
            + ("_characters" if self.tokens == "characters" else "")
            + ("_without_punctuation" if self.punctuation == "removed" else "")
            + ("_ignoring_case" if self.case == "ignored" else "")
        )

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("RougeL", labels)
        need_content("RougeL", references, self._split, "a word")

    def figure(self, answer: Answer) -> float:
        from rapidfuzz.distance import LCSseq

        text = self._split(answer.text)
        return max(
            _f1(LCSseq.similarity(text, tokens), len(text), len(tokens))
            for tokens in map(self._split, answer.references)
        )

    def _split(self, text: str) -> list[str]:
        return words_or_characters(plain(text, self.punctuation, self.case), self.tokens)


class RougeW(MeanMetric):
    """Mean F1 of the longest common string of answer and best reference: what KLUE-MRC calls ROUGE-W.

    Texts are normalised as in KLUE-baseline (Park et al. 2021, arXiv 2105.09680). An empty reference, a question
    without an answer there, is right if the answer is empty too.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("RougeW", labels)

    def figure(self, answer: Answer) -> float:
        text = klue(answer.text)
        return max(
            _f1(_longest_common(text, reference), len(text), len(reference))
            for reference in map(klue, answer.references)
        )


def _longest_common(text: str, reference: str) -> int:
    return SequenceMatcher(None, text, reference, autojunk=False).find_longest_match().size


def _f1(common: int, length: int, other: int) -> float:
    return 2 * common / (length + other) if length + other else 1.0
