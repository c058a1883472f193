"""Error rates of transcripts and of recognised text: Levenshtein distances by rapidfuzz, which jiwer uses too."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.metrics.fit import chosen, need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import Case, Punctuation, plain, suffix

Spaces = Literal["kept", "removed"]


class _ErrorRate(Metric):
    """Errors of all answers over the lengths of all references: of several references the one of the lowest rate."""

    higher_is_better = False

    def __init__(self, punctuation: Punctuation = "kept", case: Case = "kept"):
        self.punctuation: Punctuation = chosen("punctuation", punctuation, Punctuation)
        self.case: Case = chosen("case", case, Case)

    @property
    def name(self) -> str:
        return super().name + suffix(self.punctuation, self.case)

    def signature(self, answers: Sequence[Answer]) -> str:
        from importlib.metadata import version

        return f"unicode:NFC|punctuation:{self.punctuation}|case:{self.case}|rapidfuzz:{version('rapidfuzz')}"

    @abstractmethod
    def units(self, text: str) -> Sequence[str]:
        """Return what is counted of a text, normalised: its characters or its words."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts(type(self).__name__, labels)
        need_content(type(self).__name__, references, self.units, "a character")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2]: errors, and the length of the reference."""
        from rapidfuzz.distance import Levenshtein

        figures = []
        for answer in answers:
            text, references = self.units(answer.text), map(self.units, answer.references)
            pairs = [(Levenshtein.distance(text, right), len(right)) for right in references]
            figures.append(min(pairs, key=_rate))
        return np.asarray(figures, dtype=np.float64)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])


class CharacterErrorRate(_ErrorRate):
    """Characters to be inserted, deleted and replaced over those of the references, on composed (NFC) text.

    Args:
        spaces: `kept` counts a run of white space as one character, `removed` compares without any.
        punctuation: `removed` takes Unicode's categories P out first.
        case: `ignored` folds upper and lower case together.
    """

    def __init__(self, spaces: Spaces = "kept", punctuation: Punctuation = "kept", case: Case = "kept"):
        super().__init__(punctuation, case)
        self.spaces: Spaces = chosen("spaces", spaces, Spaces)

    @property
    def name(self) -> str:
        without = "_without_spaces" if self.spaces == "removed" else ""
        return super().name.replace("rate", f"rate{without}", 1)

    def signature(self, answers: Sequence[Answer]) -> str:
        return f"spaces:{self.spaces}|{super().signature(answers)}"

    def units(self, text: str) -> str:
        text = plain(text, self.punctuation, self.case)
        return text.replace(" ", "") if self.spaces == "removed" else text


class WordErrorRate(_ErrorRate):
    """Words to be inserted, deleted and replaced over those of the references, on composed (NFC) text.

    Words are what stands between spaces (in Korean, eojeol).

    Args:
        punctuation: `removed` takes Unicode's categories P out first.
        case: `ignored` folds upper and lower case together.
    """

    def units(self, text: str) -> list[str]:
        return plain(text, self.punctuation, self.case).split()


def _rate(pair: tuple[int, int]) -> float:
    errors, length = pair
    return errors / length if length else float("inf") if errors else 0.0
