"""Metrics of short free-text answers: exact match with a reference, or overlap with it."""

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from kebyt5_xm.metrics.checks import check_choice, require_content, require_free_texts
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import (
    Case,
    Punctuation,
    Tokens,
    compose_unicode,
    name_suffix,
    normalize_klue,
    normalize_korquad,
    simplify,
    words_or_characters,
)

Normalization = Literal["none", "korquad", "klue"]

_NORMALIZERS = {"none": compose_unicode, "korquad": normalize_korquad, "klue": normalize_klue}
MIN_AGREEING = 3
"""People who must give the same answer for a full score (Antol et al. 2015, section 4)."""
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")


class ExactMatch(MeanMetric):
    """Share of the answers that equal a reference, in Unicode NFC and without surrounding spaces.

    Args:
        normalization: further normalization of both texts: `none`, or that of the official scripts of KorQuAD 1.0
            (`korquad`) or KLUE-MRC (`klue`).
    """

    def __init__(self, normalization: Normalization = "none"):
        self.normalization = check_choice("normalization", normalization, Normalization)

    @property
    def name(self) -> str:
        return "exact_match" if self.normalization == "none" else f"exact_match_{self.normalization}"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        if self.normalization != "klue":  # KLUE-MRC has questions without an answer
            require_content("ExactMatch", references, _NORMALIZERS[self.normalization], "a character")

    def figure(self, answer: Answer) -> float:
        normalize = _NORMALIZERS[self.normalization]
        return float(normalize(answer.text) in map(normalize, answer.references))


class CharacterF1(MeanMetric):
    """Mean F1 of the characters of answer and best reference, in any order and without spaces.

    Texts are normalised as in KorQuAD 1.0's official script (Lim et al. 2019, arXiv 1909.07005).
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("CharacterF1", labels)
        require_content("CharacterF1", references, normalize_korquad, "letters or digits")

    def figure(self, answer: Answer) -> float:
        text = Counter(self._characters(answer.text))
        references = [Counter(self._characters(reference)) for reference in answer.references]
        return max(_f1((text & right).total(), text.total(), right.total()) for right in references)

    def _characters(self, text: str) -> str:
        return normalize_korquad(text).replace(" ", "")


class RougeL(MeanMetric):
    """Mean F1 of the longest common subsequence of answer and best reference (Lin 2004).

    Args:
        tokens: `words` between spaces, or `characters` without spaces, for Chinese and Japanese.
        punctuation: `removed` removes characters of Unicode's categories P first.
        case: `ignored` compares case-folded texts.
    """

    def __init__(
        self, tokens: Tokens = "words", punctuation: Punctuation = "kept", case: Case = "kept"
    ) -> None:
        self.tokens: Tokens = check_choice("tokens", tokens, Tokens)
        self.punctuation: Punctuation = check_choice("punctuation", punctuation, Punctuation)
        self.case: Case = check_choice("case", case, Case)

    @property
    def name(self) -> str:
        of_characters = "_characters" if self.tokens == "characters" else ""
        return f"rouge_l{of_characters}{name_suffix(self.punctuation, self.case)}"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("RougeL", labels)
        require_content("RougeL", references, self._split, "a word")

    def figure(self, answer: Answer) -> float:
        from rapidfuzz.distance import LCSseq

        text = self._split(answer.text)
        return max(
            _f1(LCSseq.similarity(text, tokens), len(text), len(tokens))
            for tokens in map(self._split, answer.references)
        )

    def _split(self, text: str) -> list[str]:
        return words_or_characters(simplify(text, self.punctuation, self.case), self.tokens)


class RougeW(MeanMetric):
    """Mean F1 of the longest common substring of answer and best reference, which KLUE-MRC calls ROUGE-W.

    Texts are normalised as in KLUE-baseline (Park et al. 2021, arXiv 2105.09680). An empty reference stands for a
    question without an answer; an empty answer to it scores 1.
    """

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("RougeW", labels)

    def figure(self, answer: Answer) -> float:
        text = normalize_klue(answer.text)
        return max(
            _f1(_longest_common(text, reference), len(text), len(reference))
            for reference in map(normalize_klue, answer.references)
        )


def _longest_common(text: str, reference: str) -> int:
    return SequenceMatcher(None, text, reference, autojunk=False).find_longest_match().size


class VQAAccuracy(MeanMetric):
    """Mean of min(people who agree / 3, 1), averaged over leaving out each person once (Goyal et al. 2017).

    With ten references it is VQA v2's figure. With fewer than four, all remaining people must agree; with one, it is
    an exact match. Case, punctuation and English articles are ignored, and number words up to ten become digits.
    """

    @property
    def name(self) -> str:
        return "vqa_accuracy"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("VQAAccuracy", labels)
        require_content("VQAAccuracy", references, normalize_vqa, "letters or digits")

    def figure(self, answer: Answer) -> float:
        people = len(answer.references)
        text = normalize_vqa(answer.text)
        agree = sum(normalize_vqa(reference) == text for reference in answer.references)
        if people == 1:
            return float(agree)
        enough = min(MIN_AGREEING, people - 1)
        # Of `people` ways to leave one out, `agree` leave out a person who agrees.
        left_out = agree * min((agree - 1) / enough, 1), (people - agree) * min(agree / enough, 1)
        return sum(left_out) / people


def normalize_vqa(text: str) -> str:
    """Return a text normalised as for VQA, except that English contractions only lose their apostrophe."""
    point = "\0"  # keeps the decimal point while punctuation is removed
    text = simplify(_DECIMAL_POINT.sub(point, text), punctuation="removed", case="ignored")
    words = [_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(words).replace(point, ".")


def _f1(common: int, length: int, other: int) -> float:
    return 2 * common / (length + other) if length + other else 1.0
