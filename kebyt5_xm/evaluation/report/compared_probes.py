"""Text ability, use of modalities and robustness of runs side by side."""

from collections.abc import Sequence, Set
from typing import Any

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import NUM_COLOURS, grid, line_chart
from kebyt5_xm.evaluation.report.markup import data, join, say
from kebyt5_xm.evaluation.report.numbers import NONE, interval, number, signed
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.robustness import curve_title, line_of, strength
from kebyt5_xm.evaluation.report.rows import MOST_CHARTED, Row, row_chart
from kebyt5_xm.evaluation.report.summary import text_kept_told
from kebyt5_xm.evaluation.report.tables import note, table
from kebyt5_xm.evaluation.report.uses import all_uses, gain_told


def compared_text(records: Sequence[Record], names: Sequence[Markup], other: Set[str]) -> Markup:
    """Return the text ability of runs; `other` are the parts whose text is not the same in all of them."""
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
        if part not in other
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


def compared_uses(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
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


def compared_robustness(records: Sequence[Record], names: Sequence[Markup]) -> Markup:
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
