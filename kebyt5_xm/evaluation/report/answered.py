"""RUN/predictions.jsonl: counts over all of it, and the few examples that a page shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kebyt5_xm.evaluation.report.difference import is_malformed

MOST_EXAMPLES = 300
"""Of all sources together; a source has its even share at most."""
RIGHT_SHARE = 4
"""Of the examples of a source, one in so many is a right one, where there are enough wrong ones."""


@dataclass(frozen=True)
class Prediction:
    """A line of the file; `right` is None where nothing says so."""

    source: str
    row: Any
    path: str
    line: Any
    prompt: list[str | dict[str, Any]]
    references: list[str]
    prediction: str
    probabilities: dict[str, float] | None
    right: bool | None

    @property
    def agrees(self) -> bool:
        """Whether it counts as right: as the file says, else if it is a reference."""
        return self.prediction in self.references if self.right is None else self.right


@dataclass
class Answers:
    """What a source's lines say together, and the examples shown: the first wrong ones, then the first right ones."""

    total: int = 0
    right: int = 0
    malformed: int = 0
    shown: list[Prediction] = field(default_factory=list)


def read_answers(path: Path, per_source: int, labels: dict[str, list[str] | None]) -> dict[str, Answers]:
    """Read the file line by line; an answer that is none of a source's `labels` is malformed too.

    Empty if there is no such file. Lines that a kill cut short are passed over.
    """
    if not path.is_file():
        return {}
    found: dict[str, Answers] = {}
    kept: dict[str, tuple[list[Prediction], list[Prediction]]] = {}
    known = {source: None if words is None else set(words) for source, words in labels.items()}
    for prediction in _lines(path):
        answers = found.setdefault(prediction.source, Answers())
        answers.total += 1
        answers.right += prediction.agrees
        words = known.get(prediction.source)
        answers.malformed += is_malformed(prediction.prediction) or (
            words is not None and prediction.prediction not in words
        )
        of_kind = kept.setdefault(prediction.source, ([], []))[prediction.agrees]
        if len(of_kind) < per_source:
            of_kind.append(prediction)
    room = min(per_source, max(1, MOST_EXAMPLES // max(1, len(found))))
    for source, (wrong, right) in list(kept.items())[:MOST_EXAMPLES]:
        spared = min(len(right), max(room // RIGHT_SHARE, room - len(wrong)))
        found[source].shown = wrong[: room - spared] + right[:spared]
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
    )
