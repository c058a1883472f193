"""CIDEr-D of captions (Vedantam et al. 2015, arXiv 1411.5726)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.checks import check_choice, require_content, require_free_texts
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import Tokens, simplify, words_or_characters

NGram = tuple[str, ...]

MAX_ORDER = 4
"""n-grams of 1 to 4 tokens, all orders with equal weight (section 4)."""
SIGMA = 6.0
"""Difference in length, in tokens, at which the score is multiplied by exp(-1/2) (section 8)."""
SCALE = 10.0
"""CIDEr-D is multiplied by ten (section 8)."""


class CIDEr(Metric):
    """Mean CIDEr-D, 0 to 10: similarity of the n-grams of caption and references; rare n-grams weigh more.

    The weight of an n-gram follows from the number of examples that have it in their references. It is counted over
    all given answers, and resamples of an interval use the same weights. Texts are compared without case and
    punctuation.

    Args:
        tokens: `words` between spaces, or `characters` without spaces, for Chinese and Japanese.
    """

    def __init__(self, tokens: Tokens = "words"):
        self.tokens: Tokens = check_choice("tokens", tokens, Tokens)

    @property
    def name(self) -> str:
        return "cider" if self.tokens == "words" else "cider_characters"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        require_free_texts("CIDEr", labels)
        require_content("CIDEr", references, self._split, "a word")
        if len(references) == 1:
            raise UserError(
                "CIDEr weighs n-grams by the number of examples that have them, found a single example, expected "
                "at least two; give more held-out rows, or use RougeL"
            )

    def statistics(self, answers: Sequence[Answer]) -> NDArray[np.float64]:
        references = [[self._split(reference) for reference in answer.references] for answer in answers]
        examples = Counter(
            ngram for texts in references for ngram in {ngram for text in texts for ngram in _ngrams(text)}
        )
        weights = {ngram: log(len(answers) / often) for ngram, often in examples.items()}
        unseen = log(max(1, len(answers)))
        figures = []
        for answer, texts in zip(answers, references, strict=True):
            written = self._split(answer.text)
            vectors = _weighted_ngrams(written, weights, unseen)
            likeness = [
                exp(-((len(written) - len(text)) ** 2) / (2 * SIGMA**2))
                * _mean_cosine(vectors, _weighted_ngrams(text, weights, unseen))
                for text in texts
            ]
            figures.append(SCALE * sum(likeness) / len(texts))
        return np.stack([np.asarray(figures, dtype=np.float64), np.ones(len(answers))], axis=1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])

    def _split(self, text: str) -> list[str]:
        return words_or_characters(simplify(text, "removed", "ignored"), self.tokens)


def _ngrams(tokens: list[str]) -> Counter[NGram]:
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, MAX_ORDER + 1)
        for start in range(len(tokens) - order + 1)
    )


def _weighted_ngrams(
    tokens: list[str], weights: Mapping[NGram, float], unseen: float
) -> list[dict[NGram, float]]:
    """Return, for each order, the n-grams with count times weight."""
    vectors: list[dict[NGram, float]] = [{} for _ in range(MAX_ORDER)]
    for ngram, often in _ngrams(tokens).items():
        vectors[len(ngram) - 1][ngram] = often * weights.get(ngram, unseen)
    return vectors


def _mean_cosine(answer: list[dict[NGram, float]], reference: list[dict[NGram, float]]) -> float:
    """Return the mean cosine over the orders, with counts clipped to the reference's (equation 4)."""
    total = 0.0
    for ours, theirs in zip(answer, reference, strict=True):
        lengths = sqrt(sum(v * v for v in ours.values())) * sqrt(sum(v * v for v in theirs.values()))
        common = sum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in ours.keys() & theirs.keys())
        total += common / lengths if lengths else 0.0
    return total / MAX_ORDER
