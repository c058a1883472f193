"""A model's scores beside those of simple baselines, as rows of a table and as sentences."""

from dataclasses import dataclass

from markupsafe import Markup

from kebyt5_xm.evaluation.baseline_scores import Best, Method, SimpleBaselines
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile, MetricScore
from kebyt5_xm.evaluation.report.wording import bilingual, data, number
from kebyt5_xm.metrics.bootstrap import Score

METHODS: tuple[Method, ...] = ("constant", "linear", "nearest")
"""In the order of columns."""


@dataclass(frozen=True)
class Compared:
    """A metric of a source: the model's score, that of each method, and the best method."""

    source: str
    metric: str
    measured: MetricScore
    by_method: dict[Method, Score]
    best: Best | None

    @property
    def verdict(self) -> Markup:
        """Whether the model is better than the best method; empty if that is not known."""
        if self.best is None:
            return Markup("")
        if not self.best.is_missed:
            return bilingual("better than all")
        value, other = number(self.measured.score.value), number(self.best.score.value)
        features = data(", ".join(self.best.baseline.features))
        if self.best.baseline.method == "constant":
            return bilingual(
                "no better than the best constant answer: {value} against {other}", value=value, other=other
            )
        if self.best.baseline.method == "linear":
            return bilingual(
                "no better than logistic regression on {features}: {value} against {other}",
                features=features,
                value=value,
                other=other,
            )
        return bilingual(
            "no better than the nearest neighbour by {features}: {value} against {other}",
            features=features,
            value=value,
            other=other,
        )


def compare_baselines(evaluation: EvaluationFile | None) -> list[Compared]:
    """Return every metric of the sources with baselines."""
    return [
        Compared(
            name,
            metric,
            measured,
            {b.method: b.scores[metric] for b in source.baselines.measured if metric in b.scores},
            source.baselines.best(metric, measured.score, measured.higher_is_better),
        )
        for name, source in (evaluation.sources if evaluation else {}).items()
        if source.baselines
        for metric, measured in source.metrics.items()
    ]


def not_better(compared: list[Compared]) -> list[Compared]:
    """Return the first metric of every source by which the model is no better than a baseline."""
    first: dict[str, Compared] = {}
    for entry in compared:
        first.setdefault(entry.source, entry)
    return [entry for entry in first.values() if entry.best is not None and entry.best.is_missed]


def heading(method: Method) -> Markup:
    """Return a method as the head of a column."""
    return {
        "constant": bilingual("Best constant answer"),
        "linear": bilingual("Logistic regression"),
        "nearest": bilingual("Nearest neighbour"),
    }[method]


def how_fitted(source: str, baselines: SimpleBaselines) -> Markup:
    """Return what the baselines of a source saw, and how many rows they were fitted on."""
    seen = dict.fromkeys(feature for baseline in baselines.measured for feature in baseline.features)
    rows, total = number(baselines.training_rows), number(baselines.of_rows)
    if not seen:
        return bilingual(
            "{source}: fitted on {rows} of {total} training rows.",
            source=data(source),
            rows=rows,
            total=total,
        )
    features = data(", ".join(seen))
    prompts = max(baseline.prompts for baseline in baselines.measured)
    if prompts == 1:
        return bilingual(
            "{source}: on {features}, fitted on {rows} of {total} training rows.",
            source=data(source),
            features=features,
            rows=rows,
            total=total,
        )
    return bilingual(
        "{source}: on {features}, fitted on {rows} of {total} training rows, separately for each of {prompts} "
        "prompts.",
        source=data(source),
        features=features,
        rows=rows,
        total=total,
        prompts=number(prompts),
    )
