"""Bits per byte of held-out text: their charts, and whether runs were measured on the same text."""

from collections.abc import Iterable, Sequence
from typing import Any

from kebyt5_xm.evaluation.report.charts import Line, LineChart, Row, line_chart
from kebyt5_xm.evaluation.report.record import Record, TextChange
from kebyt5_xm.evaluation.report.wording import bilingual, number, signed

BASELINES = ("uniform", "unigram", "bigram")
ALL = ""
"""Name for all held-out parts together."""


def text_row(name: str, found: TextChange, look: int) -> Row:
    """Return a row from the bits at the start over the worst validation to the end."""
    text = f"{number(found.start)} → {number(found.end)} ({signed(found.change)})"
    return Row(name, text, found.end, start=found.start, worst=found.worst, look=look)


def text_rows(parts: Iterable[tuple[str, TextChange]], short: bool = False) -> list[Row]:
    """Return a row for every part, in the colour of a loss or a gain; `short` rows show the change alone."""
    looks = [(name, found, 1 if found.change > 0 else 2) for name, found in parts]
    if short:
        return [Row(n, signed(f.change), f.end, start=f.start, look=look) for n, f, look in looks]
    return [text_row(*entry) for entry in looks]


def chart_text_change(record: Record) -> LineChart | None:
    """Return a chart of every part's change since the start, over the steps; None if it was not measured."""
    lines = []
    for part, found in record.forgetting.items():
        points = record.series.get(f"val/bits_per_byte/{part}")
        if points:
            points = [(step, value - found.start) for step, value in points]
            lines.append(Line(part, points, look=len(lines)))
    if lines:
        lines.append(Line(bilingual("start"), [(0.0, 0.0)], steady=True, look=len(lines)))
    return line_chart(bilingual("Change since the start, bits per byte"), bilingual("optimizer step"), lines)


def find_differing_parts(records: Sequence[Record]) -> set[str]:
    """Return the held-out parts whose text differs between the runs, judged by the entropies in results.json.

    `ALL` is included if any part differs, or if the runs have different parts.
    """
    measured = [parts for parts in map(_entropies, records) if parts]
    names = dict.fromkeys(name for parts in measured for name in parts)
    found = {name for name in names if len({p[name] for p in measured if name in p}) > 1}
    if found or len({frozenset(parts) for parts in measured}) > 1:
        found.add(ALL)
    return found


def list_text_metrics(parts: set[str]) -> set[str]:
    """Return the logged metrics of these parts that depend on their text."""
    kinds = ("val/bits_per_byte", "val/loss")
    return {f"{kind}/{part}" if part else kind for kind in kinds for part in parts}


def _entropies(record: Record) -> dict[str, tuple[Any, ...]]:
    """Return part -> the entropies of its bytes, for parts that were measured."""
    names = BASELINES[1:]
    return {
        part: tuple(round(figures[name], 6) for name in names)
        for part, figures in (record.results.get("parts") or {}).items()
        if isinstance(figures, dict) and all(isinstance(figures.get(name), int | float) for name in names)
    }
