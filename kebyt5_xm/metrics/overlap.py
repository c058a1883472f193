"""Short answers in words of one's own: those that equal a reference, and how much of one the others share with it."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from kebyt5_xm.metrics.fit import chosen, need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import (
    Case,
    Punctuation,
    Tokens,
    composed,
    klue,
    korquad,
    plain,
    suffix,
    words_or_characters,
)

Normalization = Literal["none", "korquad", "klue"]

_NORMAL = {"none": composed, "korquad": korquad, "klue": klue}
AGREE = 3
"""People who must have answered alike for full marks (Antol et al. 2015, section 4)."""
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")


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


class CharacterF1(MeanMetric):
    """Mean F1 of the characters, whatever their order, of answer and best reference, spaces left out.

    Texts are normalised as by KorQuAD 1.0's official script (Lim et al. 2019, arXiv 1909.07005).
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("CharacterF1", labels)
        need_content("CharacterF1", references, korquad, "letters or digits")

    def figure(self, answer: Answer) -> float:
        text = Counter(self._characters(answer.text))
        references = [Counter(self._characters(reference)) for reference in answer.references]
        return max(_f1((text & right).total(), text.total(), right.total()) for right in references)

    def _characters(self, text: str) -> str:
        return korquad(text).replace(" ", "")


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
        of_characters = "_characters" if self.tokens == "characters" else ""
        return f"rouge_l{of_characters}{suffix(self.punctuation, self.case)}"

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


class VQAAccuracy(MeanMetric):
    """Mean of min(people who agree / 3, 1), averaged over all but one of the people (Goyal et al. 2017).

    With ten references it is VQA v2's figure. With fewer than four, all who are left must agree; with one, it is an
    exact match. Texts are compared without case, punctuation and English articles, numbers to ten as digits.
    """

    @property
    def name(self) -> str:
        return "vqa_accuracy"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("VQAAccuracy", labels)
        need_content("VQAAccuracy", references, normal, "letters or digits")

    def figure(self, answer: Answer) -> float:
        people = len(answer.references)
        text = normal(answer.text)
        agree = sum(normal(reference) == text for reference in answer.references)
        if people == 1:
            return float(agree)
        enough = min(AGREE, people - 1)
        # One of those who agree is left out `agree` times of `people`, else one of the others.
        left_out = agree * min((agree - 1) / enough, 1), (people - agree) * min(agree / enough, 1)
        return sum(left_out) / people


def normal(text: str) -> str:
    """Return a text as it is compared. VQA's own script knows English contractions; here apostrophes just go."""
    point = "\0"  # a decimal point is no punctuation
    text = plain(_DECIMAL_POINT.sub(point, text), punctuation="removed", case="ignored")
    words = [_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(words).replace(point, ".")


def _f1(common: int, length: int, other: int) -> float:
    return 2 * common / (length + other) if length + other else 1.0
