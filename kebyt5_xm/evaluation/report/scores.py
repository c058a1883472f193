"""Rows of charts for metrics and modalities, and the outputs that were malformed."""

from collections.abc import Iterable
from dataclasses import dataclass

from kebyt5_xm.evaluation.report.charts import Row
from kebyt5_xm.evaluation.report.figures import Evaluation, Measured, Use
from kebyt5_xm.evaluation.report.language import bilingual
from kebyt5_xm.evaluation.report.recorded import Record


def metrics_of(evaluations: Iterable[Evaluation]) -> dict[str, bool]:
    """Return the metrics of all sources, and whether higher is better."""
    return {
        metric: measured.higher_is_better
        for evaluation in evaluations
        for source in evaluation.sources.values()
        for metric, measured in source.metrics.items()
    }


def score_charts(evaluation: Evaluation) -> list[tuple[str, bool, list[Row]]]:
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
    metrics: list[tuple[str, str, Measured]]
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
