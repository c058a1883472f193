"""Draws runs side by side, in the form of a report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from kebyt5_xm.evaluation.evaluation_file import Curve, SourceEvaluation
from kebyt5_xm.evaluation.report.charts import MAX_ROWS, LineChart, Row
from kebyt5_xm.evaluation.report.configuration import flatten, list_costs
from kebyt5_xm.evaluation.report.curves import overlay_curves, robustness_chart, robustness_line
from kebyt5_xm.evaluation.report.pages import list_sections, render
from kebyt5_xm.evaluation.report.record import Record, read_record
from kebyt5_xm.evaluation.report.scores import count_malformed, list_metrics, list_uses
from kebyt5_xm.evaluation.report.text_ability import ALL, find_differing_parts, list_text_metrics, text_row
from kebyt5_xm.evaluation.report.wording import bilingual
from kebyt5_xm.metrics.bootstrap import Score
from kebyt5_xm.model.runs.run import Run


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of a source in every run; `best` is the number of the clearly best run, if there is one."""

    source: str
    metric: str
    higher_is_better: bool
    scores: list[Score | None]
    examples: list[int]
    """The different numbers of examples in the runs."""
    is_main: bool
    best: int | None


def compare(runs: Sequence[Run], *, language: str = "en") -> str:
    """Return the page of several runs side by side, in Korean and English; `language`, ko or en, is shown first.

    Raises `UserError` for a file that neither training nor an evaluation wrote.
    """
    records = [read_record(run, examples=0) for run in runs]
    names = _names(records)
    other = find_differing_parts(records)
    metrics = compare_metrics(records)
    evaluations = [record.evaluation for record in records if record.evaluation]
    parts = list(dict.fromkeys(part for record in records for part in record.forgetting))
    return render(
        "compare.html.j2",
        language=language,
        title=f"{' · '.join(names)} · kebyt5-xm",
        sections=list_sections(
            "compare",
            examples=None,
            configuration=bilingual("Differences of configuration"),
            data=bilingual("Examples that could not be used"),
        ),
        names=names,
        records=records,
        evaluation=evaluations[0] if evaluations else None,
        metrics=metrics,
        score_charts=[
            (metric, higher, _score_rows([m for m in metrics if m.metric == metric], names))
            for metric, higher in list_metrics(evaluations).items()
        ],
        malformed=[count_malformed(record).share for record in records],
        parts=parts,
        part_rows=[
            text_row(f"{part} · {names[n]}", record.forgetting[part], n)
            for part in parts
            if part not in other
            for n, record in enumerate(records)
            if part in record.forgetting
        ],
        is_same_text=ALL not in other,
        other_parts=sorted(other - {ALL}),
        gains=_gains(records, names),
        robustness=_robustness(records, names),
        curves=overlay_curves(records, names, list_text_metrics(other)),
        **_settings(records),
        skipped_sources=list(dict.fromkeys(source for record in records for source in record.skipped)),
        costs=[
            (entries[0][0], [value for _, value in entries])
            for entries in zip(*map(list_costs, records), strict=True)
            if any(value is not None for _, value in entries)
        ],
    )


def compare_metrics(records: Sequence[Record]) -> list[ComparedMetric]:
    """Return every metric of every source, in the order of the first run that has it."""
    found: dict[tuple[str, str], bool] = {}
    for record in records:
        for name, source in _sources(record).items():
            for metric, measured in source.metrics.items():
                found.setdefault((name, metric), measured.higher_is_better)
    compared, main = [], set()
    for (name, metric), higher in found.items():
        sources = [_sources(record).get(name) for record in records]
        scores = [s.metrics[metric].score if s and metric in s.metrics else None for s in sources]
        examples = list(dict.fromkeys(source.examples for source in sources if source))
        best = find_clear_best(scores, higher) if len(examples) == 1 else None
        compared.append(ComparedMetric(name, metric, higher, scores, examples, name not in main, best))
        main.add(name)
    return compared


def find_clear_best(scores: Sequence[Score | None], higher_is_better: bool) -> int | None:
    """Return the number of the best score if its interval overlaps no other, else None."""
    known = [(n, score) for n, score in enumerate(scores) if score and not math.isnan(score.value)]
    if len(known) < 2 or any(math.isnan(s.low) or math.isnan(s.high) for _, s in known):
        return None
    sign = 1 if higher_is_better else -1
    best, top = max(known, key=lambda entry: sign * entry[1].value)
    apart = all(
        (top.low > other.high) if higher_is_better else (top.high < other.low)
        for n, other in known
        if n != best
    )
    return best if apart else None


def _sources(record: Record) -> dict[str, SourceEvaluation]:
    return record.evaluation.sources if record.evaluation else {}


def _names(records: Sequence[Record]) -> list[str]:
    """Return the runs' names; their paths if names repeat; numbered names if paths repeat."""
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [record.path for record in records]
    if len(set(names)) < len(names):
        names = [f"{name} ({n})" for n, name in enumerate(names, 1)]
    return names


def _score_rows(metrics: Sequence[ComparedMetric], names: Sequence[str]) -> list[Row]:
    return [
        Row.from_score(f"{m.source} · {names[n]}", score, n)
        for m in metrics
        for n, score in enumerate(m.scores)
        if score
    ]


def _gains(
    records: Sequence[Record], names: Sequence[str]
) -> list[tuple[tuple[str, str, str], list[Score | None], list[Row]]]:
    """Return (source, modality, metric), the gains over shuffled media, and the rows of a chart."""
    uses = [
        {(source, modality, metric): use for source, modality, metric, use in list_uses(record.evaluation)}
        for record in records
    ]
    found = []
    for key in dict.fromkeys(key for run_uses in uses for key in run_uses):
        gains = [run_uses[key].gain_over_shuffled if key in run_uses else None for run_uses in uses]
        rows = [Row.from_score(names[n], g, n, plus=True) for n, g in enumerate(gains) if g]
        found.append((key, gains, rows if len(found) * len(records) < MAX_ROWS else []))
    return found


def _robustness(records: Sequence[Record], names: Sequence[str]) -> list[LineChart]:
    found: dict[tuple[str, str, str], list[tuple[int, Curve]]] = {}
    for n, record in enumerate(records):
        for name, source in _sources(record).items():
            for curve in source.robustness.curves if source.robustness else ():
                for metric in curve.by_metric():
                    found.setdefault((name, curve.perturbation, metric), []).append((n, curve))
    charts = [
        robustness_chart(
            curves[0][1], metric, [robustness_line(names[n], curve, metric, n) for n, curve in curves], name
        )
        for (name, _, metric), curves in found.items()
    ]
    return [chart for chart in charts if chart]


def _settings(records: Sequence[Record]) -> dict[str, object]:
    """Return the settings that differ between the runs (None if a run lacks one), and the number of equal ones."""
    flat = [dict(flatten(record.config)) for record in records]
    keys = dict.fromkeys(key for settings in flat for key in settings if key != "run_dir")
    values = {key: [settings.get(key) for settings in flat] for key in keys}
    differ = {key: found for key, found in values.items() if len(set(found)) > 1}
    return {"settings": differ, "same_settings": len(values) - len(differ)}
