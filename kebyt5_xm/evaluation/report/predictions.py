"""Reads RUN/predictions.jsonl: counts over all lines, and the few examples that a page shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kebyt5_xm.evaluation.report.difference import is_malformed
from kebyt5_xm.evaluation.selection import Judged

MAX_EXAMPLES = 300
"""Limit over all sources; each source gets an equal share at most."""
RIGHT_SHARE = 4
"""One in this many examples of a source is a right one, if there are enough wrong ones."""


@dataclass(frozen=True)
class Prediction:
    """A line of the file; `right` and `confidence` are None if the file does not say."""

    source: str
    row: Any
    path: str
    line: Any
    prompt: list[str | dict[str, Any]]
    references: list[str]
    prediction: str
    probabilities: dict[str, float] | None
    right: bool | None
    confidence: float | None
    ended: bool

    @property
    def is_right(self) -> bool:
        """`right` of the file; if that is None, whether the prediction is one of the references."""
        return self.prediction in self.references if self.right is None else self.right


@dataclass
class SourcePredictions:
    """The counts of a source, and the examples shown: the first wrong ones, then the first right ones.

    `judged` has the confidence of every answer that the model ended itself.
    """

    total: int = 0
    right: int = 0
    malformed: int = 0
    shown: list[Prediction] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)


def read_predictions(
    path: Path, per_source: int, labels: dict[str, list[str] | None]
) -> dict[str, SourcePredictions]:
    """Read the file line by line. An answer that is not one of a source's `labels` counts as malformed.

    Returns nothing if there is no such file. A line that was cut short by a kill is skipped.
    """
    if not path.is_file():
        return {}
    found: dict[str, SourcePredictions] = {}
    first: dict[str, tuple[list[Prediction], list[Prediction]]] = {}  # wrong ones, right ones
    label_sets = {source: None if words is None else set(words) for source, words in labels.items()}
    for prediction in _lines(path):
        answers = found.setdefault(prediction.source, SourcePredictions())
        answers.total += 1
        answers.right += prediction.is_right
        if prediction.confidence is not None and prediction.ended:
            answers.judged.append(Judged(prediction.confidence, prediction.is_right))
        words = label_sets.get(prediction.source)
        answers.malformed += is_malformed(prediction.prediction) or (
            words is not None and prediction.prediction not in words
        )
        examples = first.setdefault(prediction.source, ([], []))[prediction.is_right]
        if len(examples) < per_source:
            examples.append(prediction)
    room = min(per_source, max(1, MAX_EXAMPLES // max(1, len(found))))
    for source, (wrong, right) in list(first.items())[:MAX_EXAMPLES]:
        num_right = min(len(right), max(room // RIGHT_SHARE, room - len(wrong)))
        found[source].shown = wrong[: room - num_right] + right[:num_right]
    return found


def _lines(path: Path) -> Iterator[Prediction]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                yield _prediction(json.loads(line))
            except (ValueError, TypeError, AttributeError, KeyError):
                continue


def _prediction(row: dict[str, Any]) -> Prediction:
    probabilities = row.get("probabilities")
    return Prediction(
        source=str(row["source"]),
        row=row.get("row"),
        path=str(row.get("path", "")),
        line=row.get("line"),
        prompt=[part if isinstance(part, dict) else str(part) for part in row.get("prompt") or ()],
        references=[str(reference) for reference in row.get("references") or ()],
        prediction=str(row["prediction"]),
        probabilities={str(k): float(v) for k, v in probabilities.items()} if probabilities else None,
        right=row.get("right"),
        confidence=None if row.get("confidence") is None else float(row["confidence"]),
        ended=bool(row.get("ended", True)),
    )
