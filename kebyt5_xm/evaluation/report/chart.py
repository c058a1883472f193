"""Charts of lines: SVG that stretches with the page under labels that do not.

The curves are drawn in a box of 1000 x 1000 that is stretched to the chart's size, with strokes that keep their
width; axis labels are HTML beside it, placed in per cent. So a chart is read as well at 360 pixels as at 1400.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import EMPTY, Child, element, join, say
from kebyt5_xm.evaluation.report.numbers import number

NUM_COLOURS, NUM_DASHES = 6, 3
MOST_LINES = 12
MOST_POINTS, MOST_MARKED = 400, 24
BOX = 1000


@dataclass(frozen=True)
class Line:
    """A curve: `points` are (x, y) by x, `bands` the interval around each; `steady` is a level, drawn dashed."""

    name: Child
    points: Sequence[tuple[float, float]]
    bands: Sequence[tuple[float, float]] | None = None
    steady: bool = False


def line_chart(
    title: Child, x_label: Child, lines: Sequence[Line], colours: Sequence[int] | None = None
) -> Markup:
    """Return a chart with its legend; of more than `MOST_LINES` lines the first, and how many are left out.

    Lines take the colours and dashes in turn, or those of the numbers `colours`. Nothing is returned for nothing.
    """
    looks = range(len(lines)) if colours is None else colours
    pairs = [pair for pair in zip(looks, lines, strict=True) if any(map(_defined, pair[1].points))]
    left_out = len(pairs) - len(pairs[:MOST_LINES])
    pairs = pairs[:MOST_LINES]
    drawn = [line for _, line in pairs]
    if not drawn:
        return EMPTY
    points = [point for line in drawn for point in line.points if _defined(point)]
    edges = [edge for line in drawn for band in line.bands or () for edge in band if math.isfinite(edge)]
    ys = [y for _, y in points] + edges
    y_ticks = ticks(min(ys), max(ys))
    low, high = min(*y_ticks, *ys), max(*y_ticks, *ys)
    xs = [x for line in drawn if not line.steady for x, y in line.points if math.isfinite(y)] or [0.0]
    first, last = min(xs), max(xs)
    if first == last:
        first, last = first - 0.5, last + 0.5
    x_ticks = [tick for tick in ticks(first, last, 6) if first <= tick <= last]
    if all(float(x).is_integer() for x in xs):  # there is nothing between two steps
        x_ticks = [tick for tick in x_ticks if float(tick).is_integer()] or [xs[0]]

    def place(x: float, y: float) -> tuple[float, float]:
        return BOX * (x - first) / (last - first), BOX * (high - y) / (high - low)

    drawing: list[Markup] = [_path([place(first, y), place(last, y)], "grid") for y in y_ticks]
    for index, line in pairs:
        drawing += _drawn(line, index, place, (first, last))
    svg = element("svg", *drawing, viewBox=f"0 0 {BOX} {BOX}", preserveAspectRatio="none", aria_hidden="true")
    y_labels = _labels(y_ticks, low, high)
    widest = max(len(label) for label, _ in y_labels)
    return element(
        "figure",
        element("figcaption", title),
        element(
            "div",
            element("div", *(_at(label, "bottom", share) for label, share in y_labels), class_="ys"),
            svg,
            element(
                "div",
                *(_at(label, "left", share) for label, share in _labels(x_ticks, first, last)),
                class_="xs",
            ),
            class_="plot",
            style=f"--labels: {widest}ch",
        ),
        element("div", x_label, class_="axis"),
        element("ul", *(_legend(line, index) for index, line in pairs), class_="legend"),
        element("p", say("{}개는 그리지 않음", "{} more are not drawn", str(left_out)), class_="note")
        if left_out
        else EMPTY,
        class_="chart",
    )


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return about `wanted` round numbers that cover low to high, by 1, 2 or 5 times a power of ten."""
    if not high > low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * n for n in range(start, end + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Return the labels of evenly spaced ticks, with the decimals that tell them apart."""
    if len(values) < 2:
        return [number(value) for value in values]
    step = abs(values[1] - values[0])
    if max(map(abs, values)) >= 1e4 or step < 1e-5:
        return [_short(value) for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:,.{decimals}f}".replace("-", "−") for value in values]


def _short(value: float) -> str:
    scaled, letter = value, ""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            scaled, letter = value / size, name
            break
    return f"{scaled:.3g}{letter}".replace("-", "−", 1) if scaled < 0 else f"{scaled:.3g}{letter}"


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most about `MOST_POINTS` points: of every stretch the lowest and the highest, so no spike is lost."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = -(-2 * len(points) // MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def swatch(index: int, steady: bool = False) -> Markup:
    """Return a short stroke in the colour and dash of line number `index`."""
    stroke = element("path", d="M0 5H26", class_=_classes(index, steady))
    return element("svg", stroke, viewBox="0 0 26 10", class_="swatch", aria_hidden="true")


def _drawn(line: Line, index: int, place, ends: tuple[float, float]) -> Iterable[Markup]:
    if line.steady:
        level = line.points[0][1]
        yield _path([place(ends[0], level), place(ends[1], level)], _classes(index, True))
        return
    if line.bands:
        sound = [
            (x, band)
            for (x, _), band in zip(line.points, line.bands, strict=True)
            if all(map(math.isfinite, band))
        ]
        outline = [place(x, low) for x, (low, _) in sound] + [place(x, high) for x, (_, high) in sound[::-1]]
        if len(sound) > 1:
            yield element("path", d=_d(outline) + "Z", class_=f"band c{index % NUM_COLOURS}")
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in thinned([p for p in line.points if math.isfinite(p[0])]) if _whole(line) else line.points:
        if math.isfinite(y):
            runs[-1].append(place(x, y))
        elif runs[-1]:
            runs.append([])
    for run in runs:
        if len(run) > 1:
            yield _path(run, _classes(index, False))
        if run and (len(run) == 1 or len(line.points) <= MOST_MARKED):
            dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in run)
            yield element("path", d=dots, class_=f"dot c{index % NUM_COLOURS}")


def _whole(line: Line) -> bool:
    return all(map(_defined, line.points))


def _classes(index: int, steady: bool) -> str:
    dash = "steady" if steady else f"d{index // NUM_COLOURS % NUM_DASHES}"
    return f"line c{index % NUM_COLOURS} {dash}"


def _path(points: Sequence[tuple[float, float]], classes: str) -> Markup:
    return element("path", d=_d(points), class_=classes)


def _d(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _labels(values: Sequence[float], low: float, high: float) -> list[tuple[str, float]]:
    shares = [(value - low) / (high - low) for value in values]
    return list(zip(tick_labels(values), shares, strict=True))


def _at(label: str, side: str, share: float) -> Markup:
    return element("span", label, style=f"{side}: {100 * share:.2f}%")


def _legend(line: Line, index: int) -> Markup:
    last = next((y for _, y in reversed(line.points) if math.isfinite(y)), math.nan)
    return element(
        "li", swatch(index, line.steady), element("span", line.name), element("b", number(last), class_="n")
    )


def _defined(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def grid(charts: Iterable[Markup]) -> Markup:
    """Return charts side by side where there is room; nothing of none."""
    shown = [chart for chart in charts if chart]
    return element("div", join(shown), class_="charts") if shown else EMPTY
