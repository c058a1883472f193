"""Written answers to held-out examples, collected over micro-batches and ranks and judged by the sources' metrics."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import BadSample, json_line
from kebyt5_xm.durable import durable_file
from kebyt5_xm.evaluation.answering import Answering, Written
from kebyt5_xm.metrics import Answer, Metric

NO_ANSWER = "\ufffd"
"""What counts as written for an example that cannot be made: the contract of metrics holds that nothing is worse."""


@dataclass(frozen=True)
class Judged:
    """The answers to the held-out examples of one part, in the order of their `rows`.

    `missed` are wrong answers to the examples that cannot be made, where the source counts those.
    """

    name: str
    rows: list[int]
    answers: list[Answer]
    written: list[Written]
    metrics: list[Metric]
    missed: list[Answer] = field(default_factory=list)

    @property
    def counted(self) -> list[Answer]:
        """All answers that the metrics are over."""
        return [*self.answers, *self.missed]

    def values(self) -> dict[str, float]:
        """Return metric -> value."""
        return {metric.name: metric(self.counted) for metric in self.metrics}


class Judging:
    """Collects what is written for held-out examples. A row counts once, however many ranks had it."""

    def __init__(self, data: DataModule, world_size: int = 1) -> None:
        self.data = data
        self.world_size = world_size
        self._written: dict[tuple[int, int], Written] = {}
        self._answering: dict[int, Answering] = {}

    def answering(self, number: int) -> Answering | None:
        """Return how the examples of validation part `number` are answered; None if nothing judges them."""
        source = self.data.validation.source(number)
        if not source.metrics:
            return None
        if number not in self._answering:  # asked for at every micro-batch
            length = self.data.validation.answer_length(number)
            self._answering[number] = Answering(source.labels, length, self._everywhere)
        return self._answering[number]

    def add(self, number: int, batch: Batch, written: Iterable[Written]) -> None:
        """Add what was written for the rows of a batch; rows that only fill a place are passed over."""
        assert batch.row is not None
        for row, answer in zip(batch.row.tolist(), written, strict=True):
            if row >= 0:
                self._written[number, row] = answer

    def judged(self) -> list[Judged]:
        """Return the answers of every part with metrics, over all ranks. Every rank must call it."""
        everything = self._written
        if self.world_size > 1:
            gathered: list[Any] = [None] * self.world_size
            torch.distributed.all_gather_object(gathered, self._written)
            everything = {key: answer for some in gathered for key, answer in some.items()}
        return [
            self._judged(number, everything)
            for number in range(len(self.data.validation))
            if self.data.validation.source(number).metrics
        ]

    def _judged(self, number: int, everything: dict[tuple[int, int], Written]) -> Judged:
        source = self.data.validation.source(number)
        rows, answers, written = [], [], []
        for row in sorted(row for part, row in everything if part == number):
            answer = everything[number, row]
            try:
                references = source.references(row)
            except BadSample:  # it has an input, and nothing to hold the answer against
                continue
            rows.append(row)
            written.append(answer)
            answers.append(Answer(answer.text, references, answer.probabilities))
        name = self.data.validation.names[number]
        missed = self._missed(number) if source.count_left_out else []
        return Judged(name, rows, answers, written, list(source.metrics), missed)

    def _missed(self, number: int) -> list[Answer]:
        """Return an answer that is wrong to everything for each example of a part that is known to be impossible."""
        source = self.data.validation.source(number)
        labels = source.labels or ()
        missed = []
        for row in self.data.validation.impossible(number):
            with suppress(BadSample):  # nothing could be held against an answer
                chances = dict.fromkeys(labels, 1 / max(len(labels), 1))
                missed.append(Answer(NO_ANSWER, source.references(row), chances))
        return missed

    def _everywhere(self, here: bool) -> bool:
        if self.world_size == 1:
            return here
        device = "cpu" if torch.distributed.get_backend() == "gloo" else "cuda"
        told = torch.tensor(int(here), device=device)
        torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MIN)
        return bool(told.item())


def write_answers(judged: Iterable[Judged], path: Path) -> None:
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
                file.write(json_line(line))
