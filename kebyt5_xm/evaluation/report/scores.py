"""Metrics, uses of modalities and malformed outputs, as rows of charts and tables."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kebyt5_xm.evaluation.evaluation_file import EvaluationFile, MetricScore, Use
from kebyt5_xm.evaluation.report.charts import Row
from kebyt5_xm.evaluation.report.record import Record
from kebyt5_xm.evaluation.report.wording import bilingual


def list_metrics(evaluations: Iterable[EvaluationFile]) -> dict[str, bool]:
    """Return metric -> whether higher is better, for all metrics of all sources."""
    return {
        metric: measured.higher_is_better
        for evaluation in evaluations
        for source in evaluation.sources.values()
        for metric, measured in source.metrics.items()
    }


def chart_scores(evaluation: EvaluationFile) -> list[tuple[str, bool, list[Row]]]:
    """Return (metric, whether higher is better, a row for each source)."""
    return [
        (
            metric,
            higher,
            [
                Row.from_score(name, source.metrics[metric].score)
                for name, source in evaluation.sources.items()
                if metric in source.metrics
            ],
        )
        for metric, higher in list_metrics([evaluation]).items()
    ]


class NamedUse(NamedTuple):
    """A `Use` with its source, modality and metric."""

    source: str
    modality: str
    metric: str
    use: Use


def list_uses(evaluation: EvaluationFile | None) -> list[NamedUse]:
    """Return every measured use of a modality."""
    return [
        NamedUse(name, modality, metric, use)
        for name, source in (evaluation.sources if evaluation else {}).items()
        if source.modality_use
        for modality, metrics in source.modality_use.modalities.items()
        for metric, use in metrics.items()
    ]


def list_main_uses(evaluation: EvaluationFile | None) -> list[NamedUse]:
    """Return the use by the first metric of every source and modality."""
    first: dict[tuple[str, str], NamedUse] = {}
    for use in list_uses(evaluation):
        first.setdefault((use.source, use.modality), use)
    return list(first.values())


def list_main_metrics(evaluation: EvaluationFile | None) -> list[tuple[str, str, MetricScore]]:
    """Return (source, metric, score) of the first metric of every source."""
    return [
        (name, *next(iter(source.metrics.items())))
        for name, source in (evaluation.sources if evaluation else {}).items()
        if source.metrics
    ]


def use_rows(use: Use) -> list[Row]:
    """Return the metric with a modality's own input, with another example's, and with none."""
    return [
        Row.from_score(bilingual("its own input", tag="tspan"), use.real),
        Row.from_score(bilingual("another example's", tag="tspan"), use.shuffled, look=1),
        Row.from_score(bilingual("no input", tag="tspan"), use.none, look=4),
    ]


@dataclass(frozen=True)
class MalformedOutputs:
    """Of `total` outputs, `bad` are not UTF-8 or not one of the labels; `labelled` were chosen among labels.

    `repeating` end in one phrase over and over.
    """

    total: int
    bad: int
    labelled: int
    not_a_label: int
    repeating: int
    metrics: list[tuple[str, str, MetricScore]]
    """(source, name, score) of the `malformed` metrics of the recipe."""

    @property
    def share(self) -> float | None:
        return self.bad / self.total if self.total else None


def count_malformed(record: Record) -> MalformedOutputs:
    """Count the malformed outputs of a run."""
    sources = record.evaluation.sources if record.evaluation else {}
    bad = 0
    for name, answers in record.predictions.items():
        source = sources.get(name)
        if source is None or source.labels is not None or source.malformed is None:
            bad += answers.malformed
        else:
            bad += round(source.malformed * source.examples)
    labelled = [a for n, a in record.predictions.items() if n in sources and sources[n].labels is not None]
    return MalformedOutputs(
        total=sum(answers.total for answers in record.predictions.values()),
        bad=bad,
        labelled=sum(answers.total for answers in labelled),
        not_a_label=sum(answers.malformed for answers in labelled),
        repeating=sum(round((source.repetition or 0) * source.examples) for source in sources.values()),
        metrics=[
            (name, metric, measured)
            for name, source in sources.items()
            for metric, measured in source.metrics.items()
            if metric.startswith("malformed")
        ],
    )
