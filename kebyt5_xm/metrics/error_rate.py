"""Error rates of transcripts and of recognised text, by jiwer."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.metrics.fit import chosen, need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import Case, Punctuation, plain

if TYPE_CHECKING:
    import jiwer

Spaces = Literal["kept", "removed"]


class _ErrorRate(Metric):
    """Errors of all answers over the lengths of all references: of several references the one of the lowest rate."""

    higher_is_better = False

    def __init__(self, punctuation: Punctuation = "kept", case: Case = "kept"):
        self.punctuation: Punctuation = chosen("punctuation", punctuation, Punctuation)
        self.case: Case = chosen("case", case, Case)

    @property
    def name(self) -> str:
        return (
            super().name
            + ("_without_punctuation" if self.punctuation == "removed" else "")
            + ("_ignoring_case" if self.case == "ignored" else "")
        )

    def signature(self, answers: Sequence[Answer]) -> str:
        from importlib.metadata import version

        return f"unicode:NFC|punctuation:{self.punctuation}|case:{self.case}|jiwer:{version('jiwer')}"

    def normal(self, text: str) -> str:
        """Return a text as it is compared."""
        return plain(text, self.punctuation, self.case)

    @abstractmethod
    def errors(self, references: list[str], texts: list[str]) -> list[tuple[int, int]]:
        """Return of each pair of normalised texts the number of errors and the reference's length."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts(type(self).__name__, labels)
        need_content(type(self).__name__, references, self.normal, "a character")

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        references = [self.normal(reference) for answer in answers for reference in answer.references]
        texts = [text for answer in answers for text in [self.normal(answer.text)] * len(answer.references)]
        pairs = iter(self.errors(references, texts))
        figures = [min((next(pairs) for _ in answer.references), key=_rate) for answer in answers]
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

    def normal(self, text: str) -> str:
        text = super().normal(text)
        return text.replace(" ", "") if self.spaces == "removed" else text

    def errors(self, references: list[str], texts: list[str]) -> list[tuple[int, int]]:
        import jiwer

        return _counted(jiwer.process_characters(references, texts))


class WordErrorRate(_ErrorRate):
    """Words to be inserted, deleted and replaced over those of the references, on composed (NFC) text.

    Words are what stands between spaces (in Korean, eojeol).

    Args:
        punctuation: `removed` takes Unicode's categories P out first.
        case: `ignored` folds upper and lower case together.
    """

    def errors(self, references: list[str], texts: list[str]) -> list[tuple[int, int]]:
        import jiwer

        return _counted(jiwer.process_words(references, texts))


def _counted(output: "jiwer.WordOutput | jiwer.CharacterOutput") -> list[tuple[int, int]]:
    """Return errors and reference length of each pair: jiwer's own totals are over all pairs."""
    return [
        (
            sum(
                max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                for chunk in chunks
                if chunk.type != "equal"
            ),
            len(reference),
        )
        for chunks, reference in zip(output.alignments, output.references, strict=True)
    ]


def _rate(pair: tuple[int, int]) -> float:
    errors, length = pair
    return errors / length if length else float("inf") if errors else 0.0
