"""Runs side by side, in the form of a report."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import swatch
from kebyt5_xm.evaluation.report.compared_probes import compared_robustness, compared_text, compared_uses
from kebyt5_xm.evaluation.report.compared_scores import all_scores, compared_scores, main_metric
from kebyt5_xm.evaluation.report.costs import cost_entries
from kebyt5_xm.evaluation.report.curves import over_one_another
from kebyt5_xm.evaluation.report.frame import Section, page
from kebyt5_xm.evaluation.report.held_out_text import ALL, differing, metrics_of, warning
from kebyt5_xm.evaluation.report.markup import Child, code, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import NONE, interval, number, percent
from kebyt5_xm.evaluation.report.recorded import Record, read_record
from kebyt5_xm.evaluation.report.scores import metric_title
from kebyt5_xm.evaluation.report.summary import malformed, text_kept_told
from kebyt5_xm.evaluation.report.tables import note, table
from kebyt5_xm.model.runs.run import Run


def compare(runs: Sequence[Run], *, language: str = "en") -> str:
    """Return the page of several runs side by side, in Korean and English; `language`, ko or en, is shown first.

    Raises `UserError` for a file that is not what training or an evaluation wrote.
    """
    records = [read_record(run, examples=0) for run in runs]
    names = _names(records)
    told = [data(name) for name in names]
    other = differing(records)
    sections = [
        Section(
            "summary",
            say("요약", "Summary"),
            _runs(records, told) + _summary(records, told, ALL not in other) + warning(other),
        ),
        Section("metrics", say("지표와 구간", "Metrics with intervals"), compared_scores(records, told)),
        Section("text", say("글 실력의 유지", "Text ability"), compared_text(records, told, other)),
        Section("modalities", say("모달리티 사용", "Use of modalities"), compared_uses(records, told)),
        Section("robustness", say("강건성", "Robustness"), compared_robustness(records, told)),
        Section(
            "curves",
            say("학습 곡선", "Curves"),
            over_one_another(records, told.__getitem__, metrics_of(other)),
        ),
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


def _summary(records: Sequence[Record], names: Sequence[Markup], same_text: bool) -> Markup:
    rows: list[list[Child]] = [
        [
            say("평가용 전체, 비트/바이트", "All held out, bits/byte"),
            *(number(r.last("val/bits_per_byte")) if same_text else NONE for r in records),
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
        for source, metric, higher, scores in all_scores(records)
        if metric == main_metric(records, source)
    ]
    shares = [malformed(record) for record in records]
    rows.append(
        [
            say("잘못된 형식의 출력", "Malformed outputs"),
            *(percent(bad / total) if total else NONE for bad, total in shares),
        ]
    )
    return table(["", *names], rows, numbers=range(1, len(names) + 1))


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
