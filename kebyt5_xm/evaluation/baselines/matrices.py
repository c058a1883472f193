"""Questions as rows of numbers: n-grams of their texts, and the vectors of their media."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.evaluation.baselines.questions import Medium, Question

NGRAMS = (1, 4)
"""Shortest and longest n-grams, in characters: parts of words of every script, without a list of words."""
MAX_NGRAMS = 50_000
MAX_WEIGHTS = 5_000_000
"""Of a linear model, classes x inputs: more n-grams or components are left out."""
MAX_COMPONENTS, MIN_COMPONENTS = 512, 64
"""Principal components that stand for the vectors of media, where those are longer."""


class Matrices:
    """Learns from training questions how to write questions as rows, all blocks of about unit length.

    Texts: TF-IDF of character n-grams, for each column of the prompt. Media: each number with mean 0 and deviation 1
    over the training questions, then at most 512 principal components.

    Args:
        training: the questions to learn from.
        vectors: medium -> its vector.
        with_texts: False to leave out the texts of columns.
        num_classes: how many answers a linear model will tell apart; decides how wide a row may be.
    """

    def __init__(
        self,
        training: Sequence[Question],
        vectors: Mapping[Medium, NDArray[np.float32]],
        with_texts: bool,
        num_classes: int = 1,
    ) -> None:
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        self._vectors = vectors
        most = MAX_WEIGHTS // max(1, num_classes)
        layouts = {question.layout for question in training}
        self._layout = layouts.pop() if len(layouts) == 1 else None
        self._widths = {medium[0]: len(vectors[medium]) for q in training for medium in q.media}
        self._words = self._learn_words(training, min(most, MAX_NGRAMS)) if with_texts else []
        self._scaler: Any = None
        self._components: Any = None
        media = self._media(training)
        if media.shape[1]:
            self._scaler = StandardScaler().fit(media)
            kept = min(max(MIN_COMPONENTS, min(MAX_COMPONENTS, most)), len(training), media.shape[1])
            if media.shape[1] > MAX_COMPONENTS or media.shape[1] > most:
                pca = PCA(kept, svd_solver="randomized", random_state=0)
                self._components = pca.fit(self._scaler.transform(media))

    @property
    def has_texts(self) -> bool:
        """Whether rows have n-grams of texts."""
        return bool(self._words)

    def rows(self, questions: Sequence[Question]) -> Any:
        """Return [questions, inputs], a sparse matrix if there are texts."""
        from scipy import sparse

        blocks: list[Any] = [
            words.transform([question.texts[column] for question in questions])
            for column, words in self._words
        ]
        if self._scaler is not None:
            media = self._scaler.transform(self._media(questions))
            if self._components is not None:
                media = self._components.transform(media)
            media = np.asarray(media, dtype=np.float64) / np.sqrt(self._scaler.n_features_in_)
            if not blocks:
                return media
            blocks.append(sparse.csr_matrix(media))
        return sparse.hstack(blocks, format="csr") if blocks else np.zeros((len(questions), 1))

    def _learn_words(self, training: Sequence[Question], most: int) -> list[tuple[int, Any]]:
        """Return (column, its vectorizer) for each column in which texts differ."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        found = []
        columns = len(training[0].texts)
        for column in range(columns):
            texts = [question.texts[column] for question in training]
            if len(set(texts)) > 1 and any(texts):
                words = TfidfVectorizer(
                    analyzer="char", ngram_range=NGRAMS, sublinear_tf=True, max_features=most // columns or 1
                )
                found.append((column, words.fit(texts)))
        return found

    def _media(self, questions: Sequence[Question]) -> NDArray[np.float32]:
        """Return [questions, V]: the vectors of all slots, or their mean for each modality if slots vary."""
        rows = [
            np.concatenate([self._vectors[medium] for medium in question.media])
            if self._layout is not None and question.layout == self._layout and question.media
            else self._mean(question)
            for question in questions
        ]
        return np.stack(rows) if rows else np.empty((0, 0), np.float32)

    def _mean(self, question: Question) -> NDArray[np.float32]:
        """Return the mean vector of each modality; zeros for one that the question lacks."""
        layout = self._layout if self._layout is not None else tuple(self._widths)
        found = [np.empty(0, np.float32)]
        for modality in layout:
            vectors = [self._vectors[medium] for medium in question.media if medium[0] == modality]
            found.append(np.mean(vectors, 0) if vectors else np.zeros(self._widths[modality], np.float32))
        return np.concatenate(found).astype(np.float32)
