"""The content of a run's files, read once; absent files give empty values."""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile
from kebyt5_xm.evaluation.report.predictions import SourcePredictions, read_predictions
from kebyt5_xm.model.runs.run import Run

MAX_SKIPS = 5


@dataclass
class SkippedRows:
    """The rows of skipped.jsonl of a source: their number, their causes, and the first few."""

    total: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    first: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class TextChange:
    """Bits per byte of a held-out part of the text: at the start, at the end, and the worst in between."""

    start: float
    end: float
    worst: float

    @property
    def change(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Record:
    """A run as its files describe it. `series` has the points (step, value) of each metric, by step."""

    name: str
    path: str
    config: dict[str, Any]
    backbone: dict[str, Any]
    results: dict[str, Any]
    series: dict[str, list[tuple[float, float]]]
    skipped: dict[str, SkippedRows]
    evaluation: EvaluationFile | None
    predictions: dict[str, SourcePredictions]

    @property
    def sources(self) -> dict[str, dict[str, Any]]:
        """The recipe's sources: their blocks of `class_path` and `init_args`."""
        blocks = section(self.config, "data").get("sources") or {}
        return {name: block for name, block in blocks.items() if isinstance(block, dict)}

    @property
    def modalities(self) -> dict[str, Any]:
        """The recipe's modalities: their blocks of `encoder` and `adapter`."""
        return section(section(self.config, "model"), "modalities")

    @cached_property
    def forgetting(self) -> dict[str, TextChange]:
        """The change of text ability by held-out part; empty if not measured."""
        found = {}
        for part, entry in (self.results.get("forgetting") or {}).items():
            values = [entry.get(key) for key in ("start", "end", "worst")]
            if all(isinstance(value, int | float) for value in values):
                found[part] = TextChange(*map(float, values))
        return found

    @property
    def text_parts(self) -> list[tuple[str, TextChange]]:
        """The parts of `forgetting`, the largest loss first."""
        return sorted(self.forgetting.items(), key=lambda entry: -entry[1].change)

    def last(self, metric: str) -> float | None:
        """Return the last value of a metric."""
        points = self.series.get(metric)
        return points[-1][1] if points else None

    def below(self, prefix: str) -> dict[str, list[tuple[float, float]]]:
        """Return the series whose names start with `prefix`, by the rest of the name."""
        return {name.removeprefix(prefix): p for name, p in self.series.items() if name.startswith(prefix)}


def section(config: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a mapping of a recipe, empty if it has none."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def read_record(run: Run, examples: int) -> Record:
    """Read the files of a run, at most `examples` predictions of a source. Raises `UserError` for broken ones."""
    evaluation = EvaluationFile.read(run.path / "evaluation.json")
    labels = {name: source.labels for name, source in evaluation.sources.items()} if evaluation else {}
    series: dict[str, dict[int, float]] = {}
    for row in run.metrics():  # the last row of a step counts
        series.setdefault(row["metric"], {})[row["step"]] = row["value"]
    return Record(
        name=run.path.resolve().name,
        path=str(run.path),
        config=run.config if isinstance(run.config, dict) else {},
        backbone=_json(run, "backbone/config.json"),
        results=_json(run, "results.json"),
        series={
            name: sorted((float(s), v) for s, v in points.items()) for name, points in sorted(series.items())
        },
        skipped=_skipped(run),
        evaluation=evaluation,
        predictions=read_predictions(run.path / "predictions.jsonl", examples, labels),
    )


def _json(run: Run, name: str) -> dict[str, Any]:
    path = run.path / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"'{path}' is not JSON ({error}); expected what training wrote") from error
    return content if isinstance(content, dict) else {}


def _skipped(run: Run) -> dict[str, SkippedRows]:
    path = run.path / "skipped.jsonl"
    found: dict[str, SkippedRows] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                rows = found.setdefault(str(row["source"]), SkippedRows())
                rows.causes[str(row["cause"])] += 1
            except (ValueError, TypeError, KeyError):  # a row cut short by a kill
                continue
            rows.total += 1
            if len(rows.first) < MAX_SKIPS:
                rows.first.append(row)
    return found
