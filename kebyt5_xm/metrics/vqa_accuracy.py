"""Accuracy of short answers against those of several people, as VQA scores it."""

import re
import unicodedata
from collections.abc import Sequence

from kebyt5_xm.metrics.fit import need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, MeanMetric
from kebyt5_xm.metrics.normalization import plain

AGREE = 3
"""People who must have answered alike for full marks (Antol et al. 2015, section 4)."""
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")


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
    text = plain(text, case="ignored")
    point = "\0"  # a decimal point is no punctuation
    text = _DECIMAL_POINT.sub(point, text)
    text = "".join(char for char in text if not unicodedata.category(char).startswith("P"))
    words = [_WORDS.get(word, word) for word in text.split() if word not in _ARTICLES]
    return " ".join(words).replace(point, ".")
