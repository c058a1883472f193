"""Error rates of transcripts and recognised text, from rapidfuzz's Levenshtein distances (as in jiwer)."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.metrics.checks import check_choice, require_content, require_free_texts
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import Case, Punctuation, name_suffix, simplify

Spaces = Literal["kept", "removed"]


class _ErrorRate(Metric):
    """Total errors over the total length of the references; of several references, the one with the lowest rate."""

    higher_is_better = False

    def __init__(self, punctuation: Punctuation = "kept", case: Case = "kept"):
        self.punctuation: Punctuation = check_choice("punctuation", punctuation, Punctuation)
        self.case: Case = check_choice("case", case, Case)

    @property
    def name(self) -> str:
        return super().name + name_suffix(self.punctuation, self.case)

    def signature(self, answers: Sequence[Answer]) -> str:
        from importlib.metadata import version

        return f"unicode:NFC|punctuation:{self.punctuation}|case:{self.case}|rapidfuzz:{version('rapidfuzz')}"

    @abstractmethod
    def units(self, text: str) -> Sequence[str]:
        """Return the units of a text that are compared: normalised characters or words."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts(type(self).__name__, labels)
        require_content(type(self).__name__, references, self.units, "a character")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        """Return [n, 2]: errors and length of the reference."""
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
    """Inserted, deleted and replaced characters over the characters of the references, in Unicode NFC.

    Args:
        spaces: `kept` counts a run of white space as one character, `removed` removes all white space.
        punctuation: `removed` removes characters of Unicode's categories P first.
        case: `ignored` compares case-folded texts.
    """

    def __init__(self, spaces: Spaces = "kept", punctuation: Punctuation = "kept", case: Case = "kept"):
        super().__init__(punctuation, case)
        self.spaces: Spaces = check_choice("spaces", spaces, Spaces)

    @property
    def name(self) -> str:
        without = "_without_spaces" if self.spaces == "removed" else ""
        return super().name.replace("rate", f"rate{without}", 1)

    def signature(self, answers: Sequence[Answer]) -> str:
        return f"spaces:{self.spaces}|{super().signature(answers)}"

    def units(self, text: str) -> str:
        text = simplify(text, self.punctuation, self.case)
        return text.replace(" ", "") if self.spaces == "removed" else text


class WordErrorRate(_ErrorRate):
    """Inserted, deleted and replaced words over the words of the references, in Unicode NFC.

    Words are separated by white space (in Korean, eojeol).

    Args:
        punctuation: `removed` removes characters of Unicode's categories P first.
        case: `ignored` compares case-folded texts.
    """

    def units(self, text: str) -> list[str]:
        return simplify(text, self.punctuation, self.case).split()


def _rate(pair: tuple[int, int]) -> float:
    errors, length = pair
    return errors / length if length else float("inf") if errors else 0.0
