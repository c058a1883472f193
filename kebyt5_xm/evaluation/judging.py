"""Answers to held-out examples, collected over micro-batches and ranks and judged by the sources' metrics."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import BadSample, to_json_line
from kebyt5_xm.durable import durable_file
from kebyt5_xm.evaluation.answering import Answering, Written
from kebyt5_xm.metrics import Answer, Metric
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.outputs import Outputs

NO_ANSWER = "\ufffd"
"""The answer to an example that cannot be made. By the contract of metrics, no answer is worse."""


@dataclass(frozen=True)
class JudgedPart:
    """The answers to the held-out examples of one part, in the order of `rows`.

    `missed` has a wrong answer for each example that cannot be made, if the source counts those.
    """

    name: str
    rows: list[int]
    answers: list[Answer]
    written: list[Written]
    metrics: list[Metric]
    missed: list[Answer] = field(default_factory=list)

    @property
    def counted(self) -> list[Answer]:
        """All answers that the metrics are computed on."""
        return [*self.answers, *self.missed]

    def values(self) -> dict[str, float]:
        """Return metric -> value."""
        return {metric.name: metric(self.counted) for metric in self.metrics}


class Judging:
    """Collects answers to held-out examples. A row counts once, even if several ranks answered it.

    `with_confidence` also measures the confidence of free texts, in one process alone.
    """

    def __init__(self, data: DataModule, world_size: int = 1, with_confidence: bool = False) -> None:
        assert world_size == 1 or not with_confidence
        self.data = data
        self.with_confidence = with_confidence
        self.world_size = world_size
        self._written: dict[tuple[int, int], Written] = {}
        self._answering: dict[int, Answering] = {}

    def answering(self, number: int) -> Answering | None:
        """Return how the examples of validation part `number` are answered; None if it has no metrics."""
        source = self.data.validation.source(number)
        if not source.metrics:
            return None
        if number not in self._answering:  # called for every micro-batch
            length = self.data.validation.answer_length(number)
            self._answering[number] = Answering(source.labels, length, self._everywhere, self.with_confidence)
        return self._answering[number]

    def answer(self, model: CrossModalT5, number: int, batch: Batch, output: Outputs) -> None:
        """Generate and add the answers to a batch of a part, given the model's output for it."""
        answering = self.answering(number)
        if answering is not None:
            assert batch.row is not None
            self.add(number, batch, answering.answers(model, output.states, output.mask, batch.row >= 0))

    def add(self, number: int, batch: Batch, written: Iterable[Written]) -> None:
        """Add the answers to the rows of a batch; padding rows (-1) are ignored."""
        assert batch.row is not None
        for row, answer in zip(batch.row.tolist(), written, strict=True):
            if row >= 0:
                self._written[number, row] = answer

    def judge(self) -> list[JudgedPart]:
        """Return the answers of every part with metrics, over all ranks. Every rank must call it."""
        everything = self._written
        if self.world_size > 1:
            gathered: list[Any] = [None] * self.world_size
            torch.distributed.all_gather_object(gathered, self._written)
            everything = {key: answer for rank in gathered for key, answer in rank.items()}
        return [
            self._judge_part(number, everything)
            for number in range(len(self.data.validation))
            if self.data.validation.source(number).metrics
        ]

    def _judge_part(self, number: int, everything: dict[tuple[int, int], Written]) -> JudgedPart:
        source = self.data.validation.source(number)
        rows, answers, written = [], [], []
        for row in sorted(row for part, row in everything if part == number):
            answer = everything[number, row]
            try:
                references = self.data.validation.references(number, row)
            except BadSample:  # the row has an input, but no reference
                continue
            rows.append(row)
            written.append(answer)
            answers.append(Answer(answer.text, references, answer.probabilities))
        name = self.data.validation.names[number]
        missed = self._wrong_answers(number) if source.count_left_out else []
        return JudgedPart(name, rows, answers, written, list(source.metrics), missed)

    def _wrong_answers(self, number: int) -> list[Answer]:
        """Return a wrong answer for each example of a part that cannot be made and has references."""
        source = self.data.validation.source(number)
        labels = source.labels or ()
        answers = []
        for row in self.data.validation.impossible(number):
            with suppress(BadSample):  # the row has no reference
                probabilities = dict.fromkeys(labels, 1 / max(len(labels), 1))
                answers.append(Answer(NO_ANSWER, self.data.validation.references(number, row), probabilities))
        return answers

    def _everywhere(self, here: bool) -> bool:
        if self.world_size == 1:
            return here
        device = "cpu" if torch.distributed.get_backend() == "gloo" else "cuda"
        flag = torch.tensor(int(here), device=device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MIN)
        return bool(flag.item())


def write_answers(judged: Iterable[JudgedPart], path: Path) -> None:
    """Write a JSON line for every answer: source, row, references, prediction, probabilities of labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_file(path) as file:
        for part in judged:
            for row, answer in zip(part.rows, part.answers, strict=True):
                line = {
                    "source": part.name,
                    "row": row,
                    "references": answer.references,
                    "prediction": answer.text,
                    "probabilities": dict(answer.probabilities) or None,
                }
                file.write(to_json_line(line))
