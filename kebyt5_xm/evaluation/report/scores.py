"""Rows of charts for metrics and modalities, and the outputs that were malformed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kebyt5_xm.evaluation.evaluation_file import EvaluationFile, MetricScore, Use
from kebyt5_xm.evaluation.report.charts import Row
from kebyt5_xm.evaluation.report.language import bilingual
from kebyt5_xm.evaluation.report.recorded import Record


def metrics_of(evaluations: Iterable[EvaluationFile]) -> dict[str, bool]:
    """Return the metrics of all sources, and whether higher is better."""
    return {
        metric: measured.higher_is_better
        for evaluation in evaluations
        for source in evaluation.sources.values()
        for metric, measured in source.metrics.items()
    }


def score_charts(evaluation: EvaluationFile) -> list[tuple[str, bool, list[Row]]]:
    """Return each metric, whether higher is better, and a row for every source."""
    return [
        (
            metric,
            higher,
            [
                Row.of(name, source.metrics[metric].score)
                for name, source in evaluation.sources.items()
                if metric in source.metrics
            ],
        )
        for metric, higher in metrics_of([evaluation]).items()
    ]


class NamedUse(NamedTuple):
    """A `Use` and what it is of."""

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
        Row.of(bilingual("its own input", tag="tspan"), use.real),
        Row.of(bilingual("another example's", tag="tspan"), use.shuffled, look=1),
        Row.of(bilingual("no input", tag="tspan"), use.none, look=4),
    ]


@dataclass(frozen=True)
class Malformed:
    """Of `total` outputs, `bad` are not UTF-8 or none of the labels; `labelled` are answers to a choice of labels."""

    total: int
    bad: int
    labelled: int
    not_a_label: int
    metrics: list[tuple[str, str, MetricScore]]
    """(source, name, value) of the metrics of malformed outputs that the recipe asked for."""

    @property
    def share(self) -> float | None:
        return self.bad / self.total if self.total else None


def malformed(record: Record) -> Malformed:
    """Count the malformed outputs of a run."""
    sources = record.evaluation.sources if record.evaluation else {}
    bad = 0
    for name, answers in record.answers.items():
        source = sources.get(name)
        if source is None or source.labels is not None or source.malformed is None:
            bad += answers.malformed
        else:
            bad += round(source.malformed * source.examples)
    labelled = [a for n, a in record.answers.items() if n in sources and sources[n].labels is not None]
    return Malformed(
        total=sum(answers.total for answers in record.answers.values()),
        bad=bad,
        labelled=sum(answers.total for answers in labelled),
        not_a_label=sum(answers.malformed for answers in labelled),
        metrics=[
            (name, metric, measured)
            for name, source in sources.items()
            for metric, measured in source.metrics.items()
            if metric.startswith("malformed")
        ],
    )
