"""BLEU and chrF as sacrebleu computes them, from 0 to 100."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.checks import require_content, require_free_texts
from kebyt5_xm.metrics.metric import Answer, Metric
from kebyt5_xm.metrics.normalization import compose_unicode

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric as SacreMetric

TOKENIZERS = ("13a", "zh", "intl", "char", "none")
_UNAVAILABLE = {
    "ja-mecab": "it needs MeCab and its dictionary",
    "ko-mecab": "it needs MeCab and its dictionary",
    "spm": "it downloads a model",
    "flores101": "it downloads a model",
    "flores200": "it downloads a model",
    "spBLEU-1K": "it downloads a model",
}


class _SacreMetric(Metric):
    """sacrebleu's counts of each sentence, summed over the corpus; any number of references per example.

    The counts come from the private method that sacrebleu's own `corpus_score` and bootstrap call.
    """

    @abstractmethod
    def build_sacrebleu(self) -> "SacreMetric":
        """Return the metric of sacrebleu with these options."""

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts(type(self).__name__, labels)
        require_content(type(self).__name__, references, compose_unicode, "a character")

    def signature(self, answers: Sequence[Answer]) -> str:
        """Return sacrebleu's signature, which names its version, the options and the number of references."""
        return str(self._count(answers)[0].get_signature())

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        return np.asarray(self._count(answers)[1], dtype=np.float64)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        metric = self.build_sacrebleu()
        scores = [
            metric._compute_score_from_stats(row.tolist()).score
            for row in np.reshape(sums, (-1, sums.shape[-1]))
        ]
        return np.reshape(scores, sums.shape[:-1])

    def _count(self, answers: Sequence[Answer]) -> "tuple[SacreMetric, list[list[float]]]":
        metric = self.build_sacrebleu()
        max_references = max((len(answer.references) for answer in answers), default=0)
        # One stream per reference number; None for an example with fewer references.
        streams = [
            [compose_unicode(a.references[number]) if number < len(a.references) else None for a in answers]
            for number in range(max_references)
        ]
        return metric, metric._extract_corpus_statistics([compose_unicode(a.text) for a in answers], streams)  # type: ignore[arg-type]


class BLEU(_SacreMetric):
    """Corpus BLEU, 0 to 100 (Papineni et al. 2002; Post 2018).

    Args:
        tokenize: sacrebleu's tokenizer: `13a` (words; its own default), `intl` (words by Unicode's classes), `zh`
            (Chinese characters, else words), `char` (characters) or `none`. The others need MeCab or a download.
        lowercase: ignores case.
    """

    def __init__(self, tokenize: str = "13a", lowercase: bool = False):
        if tokenize in _UNAVAILABLE:
            raise UserError(
                f"BLEU cannot use the tokenizer '{tokenize}', as {_UNAVAILABLE[tokenize]}; use "
                f"'char', or one of {', '.join(TOKENIZERS)}"
            )
        if tokenize not in TOKENIZERS:
            raise UserError(
                f"found the tokenizer '{tokenize}', expected one of {', '.join(TOKENIZERS)}"
                f"{did_you_mean(tokenize, TOKENIZERS)}"
            )
        self.tokenize = tokenize
        self.lowercase = lowercase

    @property
    def name(self) -> str:
        tokenizer = "" if self.tokenize == "13a" else f"_{self.tokenize}"
        return f"bleu{tokenizer}{'_lowercase' if self.lowercase else ''}"

    def build_sacrebleu(self) -> "SacreMetric":
        import sacrebleu

        # `force` only silences a warning about text that ends in " .".
        return sacrebleu.BLEU(tokenize=self.tokenize, lowercase=self.lowercase, force=True)


class ChrF(_SacreMetric):
    """Corpus chrF, 0 to 100: F2 of character n-grams up to 6 (Popović 2015).

    Args:
        word_order: length of the longest word n-grams that count too; 2 makes it chrF++ (Popović 2017).
        spaces: counts white space as a character.
    """

    def __init__(self, word_order: int = 0, spaces: bool = False):
        if word_order < 0:
            raise UserError(f"found word_order: {word_order}, expected 0 (chrF), or 2 (chrF++)")
        self.word_order = word_order
        self.spaces = spaces

    @property
    def name(self) -> str:
        return f"chrf{'_plus' * self.word_order}{'_spaces' if self.spaces else ''}"

    def build_sacrebleu(self) -> "SacreMetric":
        import sacrebleu

        return sacrebleu.CHRF(word_order=self.word_order, whitespace=self.spaces)
