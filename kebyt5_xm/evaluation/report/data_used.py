"""What the run was trained and measured on, and what could not be used."""

from typing import Any

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import EMPTY, Child, code, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import NONE, number, percent
from kebyt5_xm.evaluation.report.recorded import Record, Skipped, section
from kebyt5_xm.evaluation.report.tables import folded, note, table

MOST_CAUSES = 10


def data_used(record: Record) -> Markup:
    """Return the sources and the skips."""
    return join([_sources(record), _skips(record)])


def _sources(record: Record) -> Markup:
    rows = []
    for name, block in record.sources.items():
        settings = section(block, "init_args")
        rows.append(
            [
                data(name),
                code(str(block.get("class_path", NONE)).rpartition(".")[2]),
                _files(settings.get("stores") or settings.get("path")),
                _held_out(settings),
                _prompt(settings),
                number(settings.get("weight", 1.0)),
                _epochs(record, name),
            ]
        )
    if not rows:
        return note(say("레시피에 소스가 없습니다.", "The recipe names no sources."))
    header = [
        say("소스", "Source"),
        say("종류", "Kind"),
        say("파일", "Files"),
        say("평가용", "Held out"),
        say("프롬프트 → 정답", "Prompt → target"),
        say("비중", "Weight"),
        say("에폭", "Epochs"),
    ]
    return table(header, rows, numbers=(5, 6))


def _files(value: Any) -> Markup:
    if isinstance(value, dict):
        return join([element("div", data(key), ": ", code(path)) for key, path in value.items()])
    return code(value) if value is not None else data(NONE)


def _held_out(settings: dict[str, Any]) -> Child:
    validation = settings.get("validation")
    if isinstance(validation, float):
        return say("끝의 {}", "the last {}", percent(validation))
    return _files(validation)


def _prompt(settings: dict[str, Any]) -> Child:
    prompt, target = settings.get("prompt"), settings.get("target")
    if prompt is None:
        return say("스팬 복원", "span denoising") if "stores" in settings else NONE
    return join([code(_one_line(prompt)), Markup(" → "), code(_one_line(target))])


def _one_line(template: Any) -> str:
    return str(template).replace("\n", "↵")


def _epochs(record: Record, source: str) -> str:
    """Return how often a source's rows were gone through, of all its parts the least and the most."""
    found = [
        points[-1][1]
        for part, points in record.below("epochs/").items()
        if part == source or part.startswith(f"{source}/")
    ]
    told = record.results.get("epochs")
    if not found and isinstance(told, dict):
        found = [
            float(value)
            for part, value in told.items()
            if isinstance(value, int | float) and (part == source or part.startswith(f"{source}/"))
        ]
    if not found:
        return NONE
    low, high = f"{min(found):.2f}", f"{max(found):.2f}"
    return low if low == high else f"{low} – {high}"


def _skips(record: Record) -> Markup:
    counted = record.results.get("skipped") or {}
    heading = element("h3", say("쓰지 못한 예제", "Examples that could not be used"))
    names = list(dict.fromkeys([*record.skipped, *counted]))
    if not names:
        return heading + note(say("기록된 것이 없습니다.", "None is recorded."))
    rows = []
    for name in names:
        skipped, entry = record.skipped.get(name, Skipped()), counted.get(name) or {}
        count, drawn = entry.get("skipped", skipped.total), entry.get("drawn")
        share = percent(count / drawn) if drawn else NONE
        causes = [
            element("div", f"{times:,} × ", data(cause))
            for cause, times in skipped.causes.most_common(MOST_CAUSES)
        ]
        if len(skipped.causes) > MOST_CAUSES:
            causes.append(
                element("div", say("그 밖에 {}가지", "{} more", number(len(skipped.causes) - MOST_CAUSES)))
            )
        rows.append([data(name), number(count), share, join(causes)])
    header = [
        say("소스", "Source"),
        say("건너뜀", "Skipped"),
        say("뽑힌 예제 중", "Of those drawn"),
        say("원인", "Causes"),
    ]
    return heading + table(header, rows, numbers=(1, 2)) + _first(record)


def _first(record: Record) -> Markup:
    rows = [
        [
            data(name),
            number(row.get("step")) if isinstance(row.get("step"), int) else NONE,
            code(f"{row.get('path', '')}:{row.get('line', '')}"),
            data(row["cause"]),
        ]
        for name, skipped in record.skipped.items()
        for row in skipped.first
    ]
    if not rows:
        return EMPTY
    header = [
        say("소스", "Source"),
        say("단계", "Step"),
        say("파일과 줄", "File and line"),
        say("원인", "Cause"),
    ]
    return folded(
        say(
            "소스마다 처음 몇 개 (전부는 skipped.jsonl에)",
            "The first few of each source (all: skipped.jsonl)",
        ),
        table(header, rows, numbers=(1,)),
    )
