"""Whether the ability on text was kept: bits per byte of held-out text, now and at the start."""

from collections.abc import Mapping

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import Line, line_chart
from kebyt5_xm.evaluation.report.curves import BASELINES, STEPS
from kebyt5_xm.evaluation.report.markup import EMPTY, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import change, number, signed
from kebyt5_xm.evaluation.report.recorded import Forgotten, Record
from kebyt5_xm.evaluation.report.rows import Row, row_chart
from kebyt5_xm.evaluation.report.tables import note, table

MOST_ROWS = 24


def kept(record: Record) -> Markup:
    """Return the way of each part from its start to its end, the course in between, and the numbers."""
    parts = record.forgetting
    if not parts:
        missing = note(
            say(
                "재지 않았습니다: 시작할 때와 끝날 때의 바이트당 비트가 results.json에 없습니다. 글 소스가 섞여 "
                "있고 시작점이 있어야 잴 수 있습니다.",
                "Not measured: results.json has no bits per byte of the start and the end. It takes a text source in "
                "the mixture and weights to start from.",
            )
        )
        return join([missing, _now(record)])
    return join([verdict(parts), kept_chart(parts), _course(record), _table(parts), _now(record)])


def worst_part(parts: Mapping[str, Forgotten]) -> str:
    """Return the part that lost most."""
    return max(parts, key=lambda part: parts[part].change)


def verdict(parts: Mapping[str, Forgotten]) -> Markup:
    """Return the finding in a sentence."""
    part = worst_part(parts)
    found = parts[part]
    if found.change <= 0:
        return element(
            "p",
            say(
                "모든 언어에서 시작할 때보다 나쁘지 않습니다 (가장 덜 좋아진 쪽: {} {}).",
                "No part is worse than it was at the start (the least gain: {} {}).",
                data(part),
                signed(found.change),
            ),
        )
    return element(
        "p",
        say(
            "가장 많이 잃은 쪽: {}, 바이트당 {}비트 ({} → {}, {}).",
            "Lost most: {}, {} bits per byte ({} → {}, {}).",
            data(part),
            signed(found.change),
            number(found.start),
            number(found.end),
            change(found.change, found.start),
        ),
    )


def kept_chart(parts: Mapping[str, Forgotten], short: bool = False) -> Markup:
    """Return start (ring), end (dot) and worst (bar) of every part; `short` tells the change alone."""
    ordered = sorted(parts.items(), key=lambda entry: -entry[1].change)[:MOST_ROWS]
    rows = [
        Row(
            data(part),
            signed(f.change) if short else f"{number(f.start)} → {number(f.end)} ({signed(f.change)})",
            f.end,
            start=f.start,
            worst=None if short else f.worst,
            colour=1 if f.change > 0 else 2,
        )
        for part, f in ordered
    ]
    title = (
        say("바이트당 비트: ○ 시작, ● 끝", "Bits per byte: ○ start, ● end")
        if short
        else say(
            "바이트당 비트, 낮을수록 좋음 ↓ (○ 시작, ● 끝, | 도중 가장 나빴을 때)",
            "Bits per byte, lower is better ↓ (○ start, ● end, | worst in between)",
        )
    )
    more = len(parts) - len(ordered)
    return join(
        [
            row_chart(title, rows),
            note(say("그리고 {}개 더", "and {} more", str(more))) if more else EMPTY,
        ]
    )


def _course(record: Record) -> Markup:
    lines = []
    for part in record.forgetting:
        points = record.series.get(f"val/bits_per_byte/{part}")
        start = record.forgetting[part].start
        if points:
            lines.append(Line(data(part), [(step, value - start) for step, value in points]))
    if not lines:
        return EMPTY
    lines.append(Line(say("시작", "start"), [(0.0, 0.0)], steady=True))
    title = say("시작과의 차이, 바이트당 비트", "Change since the start, bits per byte")
    return element("div", line_chart(title, STEPS, lines), class_="charts")


def _table(parts: Mapping[str, Forgotten]) -> Markup:
    rows = [
        [
            data(part),
            number(f.start),
            number(f.end),
            signed(f.change),
            change(f.change, f.start),
            number(f.worst),
        ]
        for part, f in parts.items()
    ]
    header = [
        say("평가용 글", "Held-out text"),
        say("시작", "Start"),
        say("끝", "End"),
        say("차이", "Change"),
        say("차이, %", "Change, %"),
        say("가장 나빴을 때", "Worst"),
    ]
    return table(header, rows, numbers=range(1, 6))


def _now(record: Record) -> Markup:
    """Return the bits per byte of the evaluated checkpoint beside what models without context would reach."""
    measured = record.evaluation.bits_per_byte if record.evaluation else {}
    if not measured:
        return EMPTY
    told = record.results.get("parts") or {}
    rows = [
        [data(part), element("b", number(value)), *(number((told.get(part) or {}).get(k)) for k in BASELINES)]
        for part, value in measured.items()
    ]
    header = [
        say("평가용 부분", "Held-out part"),
        say("바이트당 비트", "Bits per byte"),
        say("모든 바이트가 고르면", "All bytes alike"),
        say("앞을 안 보면", "Without context"),
        say("한 바이트 앞만 보면", "Given one byte"),
    ]
    heading = element(
        "h3",
        say("평가한 체크포인트에서, 평가용 부분마다", "Every held-out part, at the evaluated checkpoint"),
    )
    remark = say(
        "오른쪽 셋은 같은 평가용 바이트의 엔트로피로, 학습 없이 닿을 수 있는 값입니다.",
        "The last three are entropies of the same held-out bytes: what can be reached without a model.",
    )
    return join([heading, table(header, rows, numbers=range(1, 5)), note(remark)])
