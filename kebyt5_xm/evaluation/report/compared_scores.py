"""Metrics of runs side by side, the best marked where the intervals permit."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import NUM_COLOURS
from kebyt5_xm.evaluation.report.figures import Source
from kebyt5_xm.evaluation.report.markup import EMPTY, code, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import interval, number
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.rows import MOST_CHARTED, Row, row_chart
from kebyt5_xm.evaluation.report.scores import how_to_read, metric_title, metrics_of
from kebyt5_xm.evaluation.report.tables import note, table
from kebyt5_xm.metrics.bootstrap import Score


def _source(record: Record, name: str) -> Source | None:
    return record.evaluation.sources.get(name) if record.evaluation else None


def all_scores(records: Sequence[Record]) -> list[tuple[str, str, bool, list[Score | None]]]:
    """Return source, metric, whether higher is better, and the score of every run."""
    found: dict[tuple[str, str], bool] = {}
    for record in records:
        for name, source in record.evaluation.sources.items() if record.evaluation else ():
            for metric, measured in source.metrics.items():
                found.setdefault((name, metric), measured.higher_is_better)
    return [
        (name, metric, higher, [_score(record, name, metric) for record in records])
        for (name, metric), higher in found.items()
    ]


def _score(record: Record, name: str, metric: str) -> Score | None:
    source = _source(record, name)
    measured = source.metrics.get(metric) if source else None
    return measured.score if measured else None


def main_metric(records: Sequence[Record], name: str) -> str | None:
    sources = [source for record in records if (source := _source(record, name)) and source.metrics]
    return next(iter(sources[0].metrics)) if sources else None


def clear_best(scores: Sequence[Score | None], higher_is_better: bool) -> int | None:
    """Return which score is the best, if its interval touches no other's; None where they permit no such word."""
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


def compared_scores(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    found = all_scores(records)
    evaluations = [record.evaluation for record in records if record.evaluation]
    if not found:
        return _missing(records, names)
    charts = []
    for metric, higher in metrics_of(*evaluations).items():
        rows = [
            Row.of(join([data(source), Markup(" · "), names[n]]), interval(s), s, n % NUM_COLOURS)
            for source, of, _, scores in found
            if of == metric
            for n, s in enumerate(scores)
            if s
        ]
        charts.append(row_chart(metric_title(metric, higher), rows[:MOST_CHARTED]))
    rows = []
    for source, metric, higher, scores in found:
        counts = [s.examples for record in records if (s := _source(record, source))]
        best = clear_best(scores, higher) if len(set(counts)) == 1 else None
        cells = [
            element("span", interval(score), class_="best" if n == best else None)
            for n, score in enumerate(scores)
        ]
        told = " / ".join(map(number, dict.fromkeys(counts)))
        rows.append([data(source), metric_title(metric, higher), told, *cells])
    header = [say("소스", "Source"), say("지표", "Metric"), say("예제", "Examples"), *names]
    rule = say(
        "★는 구간이 다른 어느 실행의 구간과도 겹치지 않고 예제 수가 같을 때에만 붙습니다. 별이 없으면 "
        "다르다고 할 수 없다는 것이지, 같다는 뜻은 아닙니다.",
        "A ★ marks the best only where its interval overlaps no other run's and the numbers of examples are equal. "
        "Where there is none, the runs are not shown to differ, which does not show that they are equal.",
    )
    return join(
        [
            how_to_read(evaluations[0]),
            *charts,
            table(header, rows, numbers=range(2, len(names) + 3)),
            note(rule),
            _missing(records, names),
        ]
    )


def _missing(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    lines = [
        element(
            "p",
            say(
                "{}: 아직 평가하지 않음. {}",
                "{}: not evaluated yet. {}",
                names[n],
                code(f"kebyt5-xm report {record.path}"),
            ),
        )
        for n, record in enumerate(records)
        if record.evaluation is None
    ]
    return element("div", *lines, class_="missing") if lines else EMPTY
