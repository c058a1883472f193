"""Values with intervals, or from a start to an end, as rows over one axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import BOX, tick_labels, ticks
from kebyt5_xm.evaluation.report.markup import Child, element
from kebyt5_xm.metrics.bootstrap import Score

MOST_CHARTED = 40
"""Rows of one chart where runs are compared; the tables have all."""


@dataclass(frozen=True)
class Row:
    """A row: `value` with a whisker, or a way from `start` over `worst` to `value`; `told` is its text."""

    name: Child
    told: Child
    value: float
    whisker: tuple[float, float] | None = None
    start: float | None = None
    worst: float | None = None
    colour: int = 0

    @classmethod
    def of(cls, name: Child, told: Child, score: Score, colour: int = 0) -> "Row":
        """Return the row of a score."""
        return cls(name, told, score.value, (score.low, score.high), colour=colour)

    def extent(self) -> list[float]:
        """Return every number that the row draws."""
        marks = [self.value, *(self.whisker or ()), self.start, self.worst]
        return [mark for mark in marks if mark is not None and math.isfinite(mark)]


def row_chart(title: Child, rows: Sequence[Row], zero: bool = False) -> Markup:
    """Return the rows over a shared axis; with `zero` it is part of the axis and stands out."""
    extent = [mark for row in rows for mark in row.extent()] + [0.0] * zero
    if not extent:
        extent = [0.0, 1.0]
    marks = ticks(min(extent), max(extent), 4)
    low, high = marks[0], marks[-1]

    def at(x: float) -> float:
        return BOX * (x - low) / (high - low)

    labels = [
        element("span", label, style=f"left: {at(x) / BOX:.2%}")
        for label, x in zip(tick_labels(marks), marks, strict=True)
    ]
    lines = "".join(f"M{at(x):.1f} 0V{BOX}" for x in marks)
    grid = [element("path", d=lines, class_="grid")]
    if zero:
        grid.append(element("path", d=f"M{at(0):.1f} 0V{BOX}", class_="zero"))
    body = [
        element(
            "li",
            element("span", row.name, class_="name"),
            element(
                "svg",
                *grid,
                *_marks(row, at),
                viewBox=f"0 0 {BOX} {BOX}",
                preserveAspectRatio="none",
                aria_hidden="true",
            ),
            element("span", row.told, class_="n"),
        )
        for row in rows
    ]
    axis = element("li", element("div", *labels, class_="xs"), class_="scale", aria_hidden="true")
    return element("figure", element("figcaption", title), element("ul", *body, axis), class_="rows")


def _marks(row: Row, at) -> list[Markup]:
    middle, colour = BOX / 2, f"c{row.colour}"
    found = []

    def stroke(d: str, kind: str) -> None:
        found.append(element("path", d=d, class_=f"{kind} {colour}"))

    if row.whisker and all(map(math.isfinite, row.whisker)):
        low, high = map(at, row.whisker)
        stroke(f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} 300V700M{high:.1f} 300V700", "line")
    if row.start is not None and math.isfinite(row.start):
        if math.isfinite(row.value):
            stroke(f"M{at(row.start):.1f} {middle}H{at(row.value):.1f}", "line")
        stroke(f"M{at(row.start):.1f} {middle}h0", "ring")
        stroke(f"M{at(row.start):.1f} {middle}h0", "hole")
    if row.worst is not None and math.isfinite(row.worst):
        stroke(f"M{at(row.worst):.1f} 250V750", "line")
    if math.isfinite(row.value):
        stroke(f"M{at(row.value):.1f} {middle}h0", "dot")
    return found
