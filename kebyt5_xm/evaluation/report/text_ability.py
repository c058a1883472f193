"""Bits per byte of held-out text: their charts, and whether runs were measured on the same text."""

from collections.abc import Iterable, Sequence
from typing import Any

from kebyt5_xm.evaluation.report.charts import Line, LineChart, Row, line_chart
from kebyt5_xm.evaluation.report.language import bilingual
from kebyt5_xm.evaluation.report.numbers import number, signed
from kebyt5_xm.evaluation.report.recorded import Forgotten, Record

BASELINES = ("uniform", "unigram", "bigram")
ALL = ""
"""Stands for all held-out parts together."""


def text_row(name: str, found: Forgotten, look: int) -> Row:
    """Return the way of a part from its start over the worst validation to its end."""
    told = f"{number(found.start)} → {number(found.end)} ({signed(found.change)})"
    return Row(name, told, found.end, start=found.start, worst=found.worst, look=look)


def text_rows(parts: Iterable[tuple[str, Forgotten]], short: bool = False) -> list[Row]:
    """Return a row for every part, in the colour of a loss or a gain; `short` tells the change alone."""
    looks = [(name, found, 1 if found.change > 0 else 2) for name, found in parts]
    if short:
        return [Row(n, signed(f.change), f.end, start=f.start, look=look) for n, f, look in looks]
    return [text_row(*entry) for entry in looks]


def text_course(record: Record) -> LineChart | None:
    """Return the change of every part since the start, over the steps; None if validations did not measure it."""
    lines = []
    for part, found in record.forgetting.items():
        points = record.series.get(f"val/bits_per_byte/{part}")
        if points:
            points = [(step, value - found.start) for step, value in points]
            lines.append(Line(part, points, look=len(lines)))
    if lines:
        lines.append(Line(bilingual("start"), [(0.0, 0.0)], steady=True, look=len(lines)))
    return line_chart(bilingual("Change since the start, bits per byte"), bilingual("optimizer step"), lines)


def differing(records: Sequence[Record]) -> set[str]:
    """Return the held-out parts whose text is not the same in all runs that have them.

    The entropies of the held-out bytes in results.json tell. `ALL` is among them if one is, or if the runs have other
    parts.
    """
    measured = [parts for parts in map(_entropies, records) if parts]
    names = dict.fromkeys(name for parts in measured for name in parts)
    found = {name for name in names if len({p[name] for p in measured if name in p}) > 1}
    if found or len({frozenset(parts) for parts in measured}) > 1:
        found.add(ALL)
    return found


def metrics_of_text(parts: set[str]) -> set[str]:
    """Return the logged metrics of these parts that depend on their text."""
    kinds = ("val/bits_per_byte", "val/loss")
    return {f"{kind}/{part}" if part else kind for kind in kinds for part in parts}


def _entropies(record: Record) -> dict[str, tuple[Any, ...]]:
    """Return part -> the entropies of its bytes, where they were measured."""
    names = BASELINES[1:]
    return {
        part: tuple(round(figures[name], 6) for name in names)
        for part, figures in (record.results.get("parts") or {}).items()
        if isinstance(figures, dict) and all(isinstance(figures.get(name), int | float) for name in names)
    }
