"""Simple baselines of a source: what can be reached on its held-out examples without training a network.

    constant   one answer to everything, the best by each metric on the training rows
    linear     logistic regression on character n-grams and on vectors of media, where targets repeat
    nearest    the answer of the nearest training example, where targets are free text

If the prompt has media and few different texts ("{image:image} {language}:" has one for each language), each text is
fitted separately, since a linear model of both would add up what must be combined.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.baseline_scores import Baseline, Method, SimpleBaselines
from kebyt5_xm.evaluation.baselines.constant import best_constants
from kebyt5_xm.evaluation.baselines.learned import Linear, nearest
from kebyt5_xm.evaluation.baselines.matrices import Matrices
from kebyt5_xm.evaluation.baselines.media_features import FeatureMaker
from kebyt5_xm.evaluation.baselines.questions import Question, Reader
from kebyt5_xm.metrics import Answer, Metric, score

MAX_CLASSES = 1000
"""Different targets that logistic regression tells apart. Without a closed list, each must occur twice on average."""
MAX_PROMPTS = 20
"""Different texts of a prompt with media that are fitted separately."""
MIN_ROWS = 2
"""Training rows that each of them needs."""


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows of one part, and the right answers to each."""

    prompts: PromptTable
    rows: Sequence[int]
    references: Sequence[tuple[str, ...]]
    missed: Sequence[Answer] = ()
    """Wrong answers that count besides, for rows that give no example (see `JudgedPart.missed`)."""


def training_tables(data: DataModule, number: int) -> list[PromptTable]:
    """Return the tables that the source of validation part `number` trains on; empty if it shows no prompts."""
    source = data.validation.source(number)
    tables = [source.prompts(held_out=False, part=part) for part in range(len(source.parts()))]
    return [table for table in tables if table is not None]


def simple_baselines(
    training: Sequence[PromptTable],
    held_out: HeldOutRows,
    metrics: Sequence[Metric],
    labels: Sequence[str] | None,
    makers: Mapping[str, FeatureMaker],
    training_rows: Sequence[int] | None = None,
    longest: float | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> SimpleBaselines:
    """Fit the baselines on training rows and judge them on held-out rows. The result is always the same.

    Args:
        training: the connected tables to train on, such as `training_tables(data, number)`.
        held_out: the rows to answer, such as those that a model answered.
        metrics: judge the answers.
        labels: the closed list of answers, or None for free text.
        makers: what makes the vectors of each modality of the prompt (`media_features`).
        training_rows: the rows to use, counted through all tables; None for all.
        longest: seconds that media may take; None for any time.
        progress: called with the number of media done.

    Raises `TooSlow` if media would take longer, and `UserError` if scikit-learn is missing or no training row can be
    used.
    """
    require_scikit_learn()
    started = time.perf_counter()
    total = sum(len(table) for table in training)
    reader = Reader(makers, longest, progress)
    wanted = range(total) if training_rows is None else training_rows
    known = [q for q in _questions_of(reader, training, wanted) if q is not None]
    asked = reader.questions(held_out.prompts, held_out.rows)
    reader.read_media()
    known = [question for question in known if reader.is_usable(question)]
    if not known:
        raise UserError(
            f"found no training row of {total} that can be used, expected some to fit baselines on; "
            "look at them with `kebyt5-xm lint`"
        )
    answerable = [n for n, q in enumerate(asked) if q is not None and reader.is_usable(q)]
    questions = [asked[n] for n in answerable]
    fitting = _Fitting(known, [q for q in questions if q is not None], reader, labels)
    constants = _Constants(known, metrics, labels or (), fitting.is_separate)
    measured = [constants.baseline(asked, held_out, metrics, fitting.num_prompts)]
    for method, answers in fitting.answers():
        complete: list[Answer] = [constants.of(question, 0) for question in asked]
        for n, answer in zip(answerable, answers, strict=True):
            complete[n] = answer
        scores = {metric.name: score(metric, _judged(complete, held_out)) for metric in metrics}
        measured.append(Baseline(method, fitting.features, fitting.num_prompts, scores))
    return SimpleBaselines(tuple(measured), len(known), total, round(time.perf_counter() - started, 1))


def require_scikit_learn() -> None:
    """Raise `UserError` if scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise UserError(
            "simple baselines need scikit-learn; run: pip install 'kebyt5-xm[baselines]'"
        ) from error


def _questions_of(
    reader: Reader, tables: Sequence[PromptTable], rows: Sequence[int]
) -> list[Question | None]:
    found: list[Question | None] = []
    first = 0
    for table in tables:
        found += reader.questions(table, [row - first for row in rows if first <= row < first + len(table)])
        first += len(table)
    return found


class _Constants:
    """The best constant answers, for each text of the prompt if they are fitted separately."""

    def __init__(
        self, known: Sequence[Question], metrics: Sequence[Metric], labels: Sequence[str], separate: bool
    ) -> None:
        groups: dict[tuple[str, ...], list[str]] = {}
        for question in known:
            groups.setdefault(question.texts if separate else (), []).append(question.target)
        self._separate = separate
        self._all = best_constants([question.target for question in known], metrics, labels)
        self._of = {texts: best_constants(targets, metrics, labels) for texts, targets in groups.items()}

    def of(self, question: Question | None, metric: int) -> Answer:
        """Return the answer to a question that is best by the metric of this number."""
        texts = question.texts if question is not None and self._separate else ()
        return self._of.get(texts, self._all)[metric]

    def baseline(
        self,
        asked: Sequence[Question | None],
        held_out: HeldOutRows,
        metrics: Sequence[Metric],
        num_prompts: int,
    ) -> Baseline:
        """Return the scores: by each metric, those of the constants that are best by it."""
        scores = {
            metric.name: score(metric, _judged([self.of(q, n) for q in asked], held_out))
            for n, metric in enumerate(metrics)
        }
        return Baseline("constant", (), num_prompts, scores)


class _Fitting:
    """Fits the methods to all training questions, or separately for each text of the prompt."""

    def __init__(
        self,
        known: Sequence[Question],
        asked: Sequence[Question],
        reader: Reader,
        labels: Sequence[str] | None,
    ) -> None:
        self._known, self._asked, self._labels = known, asked, labels
        self.is_separate = _is_separate(known, asked)
        self._targets = np.asarray([question.target for question in known], dtype=object)
        numbers: dict[tuple[object, ...], int] = {}
        self._inputs = np.asarray([numbers.setdefault((q.texts, q.media), len(numbers)) for q in known])
        groups = {q.texts: 0 for q in known} if self.is_separate else {(): 0}
        self._groups = list(groups)
        self.num_prompts = len(groups)
        counts = [len(set(self._targets[self._in(known, texts)])) for texts in self._groups]
        self._matrices = Matrices(known, reader.vectors, not self.is_separate, max(counts))
        self._rows = self._matrices.rows(known)
        self._asked_rows = self._matrices.rows(asked)
        media = dict.fromkeys(reader.makers[m].name for q in known for m in q.layout)
        self.features = (*media, *(("characters",) if self._matrices.has_texts else ()))

    def answers(self) -> list[tuple[Method, list[Answer]]]:
        """Return the answers to all questions by each method that suits the source."""
        found: list[tuple[Method, list[Answer]]] = []
        if not self.features or not self._asked:
            return found  # all inputs are alike
        distinct, num_rows = len(set(self._targets)), len(self._targets)
        repeats = self._labels is not None or 2 * distinct <= num_rows
        if 1 < distinct <= MAX_CLASSES and repeats:
            found.append(("linear", self._linear()))
        if self._labels is None and distinct > 1:
            found.append(("nearest", self._nearest()))
        return found

    def _linear(self) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for training, places in self._split():
            model = Linear(self._rows[training], self._targets[training], self._inputs[training])
            for place, row in zip(places, model.probabilities(self._asked_rows[places]), strict=True):
                chances = dict.fromkeys(self._labels or (), 0.0)
                if self._labels is not None:
                    chances |= dict(zip(model.classes, row.tolist(), strict=True))
                answers[int(place)] = Answer(model.classes[int(row.argmax())], (), chances)
        return [answers[n] for n in range(len(self._asked))]

    def _nearest(self) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for training, places in self._split():
            found = training[nearest(self._rows[training], self._asked_rows[places])]
            answers |= {
                int(place): Answer(self._known[n].target, ()) for place, n in zip(places, found, strict=True)
            }
        return [answers[n] for n in range(len(self._asked))]

    def _split(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (numbers of training questions, numbers of those asked) for each text of the prompt."""
        pairs = [(self._in(self._known, texts), self._in(self._asked, texts)) for texts in self._groups]
        return [(training, places) for training, places in pairs if len(places)]

    def _in(self, questions: Sequence[Question], texts: tuple[str, ...]) -> np.ndarray:
        if not self.is_separate:
            return np.arange(len(questions))
        return np.asarray([n for n, question in enumerate(questions) if question.texts == texts], np.int64)


def _is_separate(known: Sequence[Question], asked: Sequence[Question]) -> bool:
    counts: dict[tuple[str, ...], int] = {}
    for question in known:
        counts[question.texts] = counts.get(question.texts, 0) + 1
    return (
        any(question.media for question in known)
        and 1 < len(counts) <= MAX_PROMPTS
        and min(counts.values()) >= MIN_ROWS
        and all(question.texts in counts for question in asked)
    )


def _judged(answers: Sequence[Answer], held_out: HeldOutRows) -> list[Answer]:
    """Return the answers with their references, and the wrong answers that count besides."""
    pairs = zip(answers, held_out.references, strict=True)
    return [*(Answer(a.text, right, a.probabilities) for a, right in pairs), *held_out.missed]
