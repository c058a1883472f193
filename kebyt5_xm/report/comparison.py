"""Runs side by side, in the form of a report."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kebyt5_xm.metrics.bootstrap import Score
from kebyt5_xm.report.chart import NUM_COLOURS, grid, line_chart, swatch
from kebyt5_xm.report.costs import cost_entries
from kebyt5_xm.report.curves import over_one_another
from kebyt5_xm.report.figures import Source
from kebyt5_xm.report.frame import Section, page
from kebyt5_xm.report.markup import EMPTY, Child, code, data, element, join, say
from kebyt5_xm.report.numbers import NONE, interval, number, percent, signed
from kebyt5_xm.report.recorded import Record, read_record
from kebyt5_xm.report.robustness import curve_title, line_of, strength
from kebyt5_xm.report.rows import Row, row_chart
from kebyt5_xm.report.scores import how_to_read, metric_title, metrics_of
from kebyt5_xm.report.summary import malformed, text_kept_told
from kebyt5_xm.report.tables import note, table
from kebyt5_xm.report.uses import all_uses, gain_told
from kebyt5_xm.run import Run

MOST_CHARTED = 40
"""Rows of one chart; the tables have all."""


def compare(runs: Sequence[Run], *, language: str = "en") -> str:
    """Return the page of several runs side by side, in Korean and English; `language`, ko or en, is shown first.

    Raises `UserError` for a file that is not what training or an evaluation wrote.
    """
    records = [read_record(run, examples=0) for run in runs]
    names = _names(records)
    told = [data(name) for name in names]
    sections = [
        Section("summary", say("요약", "Summary"), _runs(records, told) + _summary(records, told)),
        Section("metrics", say("지표와 구간", "Metrics with intervals"), _metrics(records, told)),
        Section("text", say("글 실력의 유지", "Text ability"), _text(records, told)),
        Section("modalities", say("모달리티 사용", "Use of modalities"), _uses(records, told)),
        Section("robustness", say("강건성", "Robustness"), _robustness(records, told)),
        Section("curves", say("학습 곡선", "Curves"), over_one_another(records, told.__getitem__)),
        Section(
            "configuration", say("설정의 차이", "Differences of configuration"), _settings(records, told)
        ),
        Section("data", say("쓰지 못한 예제", "Examples that could not be used"), _skips(records, told)),
        Section("cost", say("속도, 메모리, 비용", "Speed, memory, cost"), _costs(records, told)),
    ]
    heading = join(told, " · ")
    under = say("실행 {}개를 나란히", "{} runs side by side", number(len(records)))
    return page(f"{' · '.join(names)} · kebyt5-xm", heading, under, sections, language)


def _names(records: Sequence[Record]) -> list[str]:
    """Return the runs' names, their paths where names repeat, numbered where paths do."""
    names = [record.name for record in records]
    if len(set(names)) < len(names):
        names = [record.path for record in records]
    if len(set(names)) < len(names):
        names = [f"{n} ({number_})" for number_, n in enumerate(names, 1)]
    return names


def _runs(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    items = [
        element("li", swatch(n), names[n], Markup(" "), code(record.path)) for n, record in enumerate(records)
    ]
    return element("ul", *items, class_="legend")


def _summary(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    rows: list[list[Child]] = [
        [
            say("평가용 전체, 비트/바이트", "All held out, bits/byte"),
            *(number(r.last("val/bits_per_byte")) for r in records),
        ],
        [
            say("글을 가장 많이 잃은 언어의 변화", "Text: largest change of a part"),
            *(
                text_kept_told(max(f.change for f in r.forgetting.values())) if r.forgetting else NONE
                for r in records
            ),
        ],
    ]
    rows += [
        [join([data(source), Markup(": "), metric_title(metric, higher)]), *map(interval, scores)]
        for source, metric, higher, scores in _scores(records)
        if metric == _main_metric(records, source)
    ]
    shares = [malformed(record) for record in records]
    rows.append(
        [
            say("잘못된 형식의 출력", "Malformed outputs"),
            *(percent(bad / total) if total else NONE for bad, total in shares),
        ]
    )
    return table(["", *names], rows, numbers=range(1, len(names) + 1))


# -- metrics ---------------------------------------------------------------------------------------


def _source(record: Record, name: str) -> Source | None:
    return record.evaluation.sources.get(name) if record.evaluation else None


def _scores(records: Sequence[Record]) -> list[tuple[str, str, bool, list[Score | None]]]:
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


def _main_metric(records: Sequence[Record], name: str) -> str | None:
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


def _metrics(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    found = _scores(records)
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


# -- text, modalities, robustness ------------------------------------------------------------------


def _text(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    parts = list(dict.fromkeys(part for record in records for part in record.forgetting))
    if not parts:
        return note(say("어느 실행에서도 재지 않았습니다.", "Not measured in any of the runs."))
    charted = [
        Row(
            join([data(part), Markup(" · "), names[n]]),
            f"{number(f.start)} → {number(f.end)} ({signed(f.change)})",
            f.end,
            start=f.start,
            worst=f.worst,
            colour=n % NUM_COLOURS,
        )
        for part in parts
        for n, record in enumerate(records)
        if (f := record.forgetting.get(part))
    ]
    title = say(
        "바이트당 비트, 낮을수록 좋음 ↓ (○ 시작, ● 끝, | 도중 가장 나빴을 때)",
        "Bits per byte, lower is better ↓ (○ start, ● end, | worst in between)",
    )
    rows = [
        [
            data(part),
            *(text_kept_told(f.change) if (f := record.forgetting.get(part)) else NONE for record in records),
        ]
        for part in parts
    ]
    header = [say("변화, 비트/바이트", "Change, bits per byte"), *names]
    return row_chart(title, charted[:MOST_CHARTED]) + table(header, rows, numbers=range(1, len(names) + 1))


def _uses(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    found = [
        {(source, use.modality, use.metric): use for source, use in all_uses(record)} for record in records
    ]
    keys = list(dict.fromkeys(key for uses in found for key in uses))
    if not keys:
        return note(say("어느 실행에서도 재지 않았습니다.", "Not measured in any of the runs."))
    charts, rows = [], []
    for key in keys:
        gains = [uses[key].gain_over_shuffled if key in uses else None for uses in found]
        title = join([data(part) for part in key], " · ")
        charted = [
            Row.of(names[n], interval(gain, plus=True), gain, n % NUM_COLOURS)
            for n, gain in enumerate(gains)
            if gain
        ]
        if len(charts) * len(records) < MOST_CHARTED:
            charts.append(row_chart(title, charted, zero=True))
        rows.append([title, *(gain_told(gain) if gain else NONE for gain in gains)])
    remark = say(
        "이득: 제 입력일 때의 지표에서 다른 예제의 입력일 때의 지표를 뺀 것, 좋아지는 쪽이 양수. "
        "구간이 0을 담으면 쓴다고 할 수 없습니다.",
        "The gain: the metric with its own input less that with another example's, better as positive. Where the "
        "interval holds 0, the modality is not shown to be used.",
    )
    header = [say("소스 · 모달리티 · 지표", "Source · modality · metric"), *names]
    return join([note(remark), *charts, table(header, rows, numbers=range(1, len(names) + 1))])


def _robustness(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    found: dict[tuple[str, str, str], list[tuple[int, Any]]] = {}
    for n, record in enumerate(records):
        for name, source in record.evaluation.sources.items() if record.evaluation else ():
            for curve in source.robustness.curves if source.robustness else ():
                for metric in curve.points:
                    found.setdefault((name, curve.perturbation, metric), []).append((n, curve))
    charts = [
        line_chart(
            join([data(name), Markup(" · "), curve_title(curves[0][1], metric)]),
            strength(curves[0][1]),
            [line_of(names[n], curve, metric) for n, curve in curves],
            [n for n, _ in curves],
        )
        for (name, _, metric), curves in found.items()
    ]
    return grid(charts) or note(say("어느 실행에서도 재지 않았습니다.", "Not measured in any of the runs."))


# -- configuration, skips, cost --------------------------------------------------------------------


def _settings(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    flat = [dict(flattened(record.config)) for record in records]
    keys = list(dict.fromkeys(key for settings in flat for key in settings if key != "run_dir"))
    rows = []
    for key in keys:
        values = [settings.get(key, NONE) for settings in flat]
        if len(set(values)) > 1:
            rows.append([code(key), *(code(value) if value != NONE else NONE for value in values)])
    if not rows:
        return note(say("설정이 모두 같습니다.", "All settings are the same."))
    same = sum(len({settings.get(key) for settings in flat}) == 1 for key in keys)
    header = [say("설정", "Setting"), *names]
    return table(header, rows) + note(
        say("같은 설정 {}개는 뺐습니다.", "{} settings that are the same are left out.", number(same))
    )


def flattened(config: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return the settings of a recipe as (dotted key, value); an empty mapping is a value."""
    if isinstance(config, dict) and config:
        return [
            entry
            for key, value in config.items()
            for entry in flattened(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    return [(prefix, str(config))] if prefix else []


def _skips(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    sources = list(dict.fromkeys(source for record in records for source in record.skipped))
    if not sources:
        return note(say("어느 실행에도 없습니다.", "None in any of the runs."))
    rows = [
        [
            data(source),
            *(
                number(record.skipped[source].total) if source in record.skipped else "0"
                for record in records
            ),
        ]
        for source in sources
    ]
    return table([say("소스", "Source"), *names], rows, numbers=range(1, len(names) + 1))


def _costs(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
    columns = [cost_entries(record) for record in records]
    rows = [
        [entries[0][0], *(NONE if value is None else value for _, value in entries)]
        for entries in zip(*columns, strict=True)
        if any(value is not None for _, value in entries)
    ]
    if not rows:
        return note(say("results.json이 있는 실행이 없습니다.", "None of the runs has a results.json."))
    return table(["", *names], rows, numbers=range(1, len(names) + 1))
