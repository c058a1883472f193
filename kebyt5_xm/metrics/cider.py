"""CIDEr-D of captions (Vedantam et al. 2015, arXiv 1411.5726)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics.fit import chosen, need_content, need_texts
from kebyt5_xm.metrics.metric import Answer, Metric, ratio
from kebyt5_xm.metrics.normalization import Tokens, plain, words_or_characters

NGram = tuple[str, ...]

LONGEST = 4
"""n-grams of 1 to 4 tokens, all orders alike (section 4)."""
SIGMA = 6.0
"""Tokens of difference in length at which a caption counts exp(-1/2) as much (section 8)."""
SCALE = 10.0
"""CIDEr-D is given times ten (section 8)."""


class CIDEr(Metric):
    """Mean CIDEr-D, 0 to 10: likeness of a caption's n-grams to those of each reference, rare ones weighing more.

    How rare an n-gram is (in the references of how few examples) is counted over all answers that are given, and
    stays so for an interval's resamples. Texts are compared without case and punctuation.

    Args:
        tokens: `words` between spaces, or `characters`, spaces left out, as for Chinese and Japanese.
    """

    def __init__(self, tokens: Tokens = "words"):
        self.tokens: Tokens = chosen("tokens", tokens, Tokens)

    @property
    def name(self) -> str:
        return "cider" if self.tokens == "words" else "cider_characters"

    def check(self, references: Sequence[Sequence[str]], labels: Sequence[str] | None) -> None:
        need_texts("CIDEr", labels)
        need_content("CIDEr", references, self._split, "a word")
        if len(references) == 1:
            raise UserError(
                "CIDEr weighs n-grams by the examples that have them, found a single example; give more held-out "
                "rows, or use RougeL"
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
            vectors = _weighed(written, weights, unseen)
            likeness = [
                exp(-((len(written) - len(text)) ** 2) / (2 * SIGMA**2))
                * _cosines(vectors, _weighed(text, weights, unseen))
                for text in texts
            ]
            figures.append(SCALE * sum(likeness) / len(texts))
        return np.stack([np.asarray(figures, dtype=np.float64), np.ones(len(answers))], axis=1)

    def value(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return ratio(sums[..., 0], sums[..., 1])

    def _split(self, text: str) -> list[str]:
        return words_or_characters(plain(text, "removed", "ignored"), self.tokens)


def _ngrams(tokens: list[str]) -> Counter[NGram]:
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, LONGEST + 1)
        for start in range(len(tokens) - order + 1)
    )


def _weighed(tokens: list[str], weights: Mapping[NGram, float], unseen: float) -> list[dict[NGram, float]]:
    """Return the n-grams of each order with their counts times weights."""
    vectors: list[dict[NGram, float]] = [{} for _ in range(LONGEST)]
    for ngram, often in _ngrams(tokens).items():
        vectors[len(ngram) - 1][ngram] = often * weights.get(ngram, unseen)
    return vectors


def _cosines(written: list[dict[NGram, float]], right: list[dict[NGram, float]]) -> float:
    """Return the mean over the orders of the cosine, in which repeating an n-gram gains nothing (equation 4)."""
    total = 0.0
    for ours, theirs in zip(written, right, strict=True):
        lengths = sqrt(sum(v * v for v in ours.values())) * sqrt(sum(v * v for v in theirs.values()))
        common = sum(min(ours[ngram], theirs[ngram]) * theirs[ngram] for ngram in ours.keys() & theirs.keys())
        total += common / lengths if lengths else 0.0
    return total / LONGEST
