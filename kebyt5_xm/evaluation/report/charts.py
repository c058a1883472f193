"""Charts as SVG with real text, drawn by matplotlib and coloured by the page's style sheet.

matplotlib lays out lines, ticks and numbers. Names of lines and rows are inserted afterwards, so that the browser
renders them in its own font: no font with Korean has to be installed or embedded.
"""

import io
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from kebyt5_xm.evaluation.report.wording import interval
from kebyt5_xm.metrics.bootstrap import Score

NUM_COLOURS = 6
DASHES = ("solid", (0, (3.5, 1.5)), (0, (1, 1.5)))
MAX_LINES, MAX_POINTS, MAX_MARKED = 12, 400, 24
MAX_ROWS = 40
"""Limit of rows in a chart; tables have all rows."""
WIDTH, LINES_HEIGHT, ROW_HEIGHT, AXIS_HEIGHT = 380, 190, 36, 20
"""In units of the SVG, which are pixels at a width of 380 pixels."""
MAX_NAME = 42
"""Limit of a row's name in columns; a Korean character takes two."""

# Placeholder colours that become variables of the style sheet, for light and dark pages.
_VARIABLES = (*(f"c{n}" for n in range(NUM_COLOURS)), "line", "ink", "soft", "back")
_COLOURS = {name: f"#fade{n:02x}" for n, name in enumerate(_VARIABLES)}
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "kebyt5-xm",  # the same page for the same run
    "path.simplify": False,  # simplifying would drop the dots, which are lines of zero length
    "font.size": 11,
}


@dataclass(frozen=True)
class Line:
    """A curve: `points` are (x, y) by x, `bands` the interval of each. A `steady` line is a level, drawn dotted."""

    name: str | Markup
    points: Sequence[tuple[float, float]]
    bands: Sequence[tuple[float, float]] | None = None
    steady: bool = False
    look: int = 0
    """Number of its colour and dash."""

    @property
    def is_drawable(self) -> bool:
        return any(map(_finite, self.points))

    @property
    def last(self) -> float:
        """The last finite value, NaN if there is none."""
        return next((y for _, y in reversed(self.points) if math.isfinite(y)), math.nan)


@dataclass(frozen=True)
class LineChart:
    """A drawing with its title, labels and legend; `left_out` lines are not drawn."""

    title: str | Markup
    x_label: str | Markup
    lines: Sequence[Line]
    left_out: int
    svg: Markup


@dataclass(frozen=True)
class Row:
    """A row: `value` with its interval, or a path from `start` over `worst` to `value`; `text` is its label."""

    name: str | Markup
    text: str
    value: float
    interval: tuple[float, float] | None = None
    start: float | None = None
    worst: float | None = None
    look: int = 0

    @classmethod
    def from_score(cls, name: str | Markup, score: Score, look: int = 0, plus: bool = False) -> "Row":
        """Return the row of a score; with `plus`, its text has the sign."""
        return cls(name, interval(score, plus), score.value, (score.low, score.high), look=look)

    def marks(self) -> list[float]:
        """Return every number that the row draws."""
        marks = [self.value, *(self.interval or ()), self.start, self.worst]
        return [mark for mark in marks if mark is not None and math.isfinite(mark)]


def line_chart(title: str | Markup, x_label: str | Markup, lines: Sequence[Line]) -> LineChart | None:
    """Return the chart of the first `MAX_LINES` lines; None if no line has a point."""
    known = [line for line in lines if line.is_drawable]
    drawn = known[:MAX_LINES]
    if not drawn:
        return None
    ys = [y for line in drawn for point in line.points if _finite(point) for y in point[1:]]
    ys += [y for line in drawn for band in line.bands or () for y in band if math.isfinite(y)]
    xs = [x for line in drawn if not line.steady for x, y in line.points if math.isfinite(y)] or [0.0]
    with style.context(["default", _STYLE]):  # whatever the reader's matplotlibrc says
        axes = _axes(WIDTH, LINES_HEIGHT)
        whole = all(float(x).is_integer() for x in xs)  # steps are integers, so their ticks are too
        _set_ticks(axes.xaxis, xs, 6, integer=whole)
        axes.set_xlim(min(xs), max(xs)) if min(xs) < max(xs) else axes.set_xlim(xs[0] - 0.5, xs[0] + 0.5)
        axes.set_ylim(*_set_ticks(axes.yaxis, ys, 5))
        labels = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
        left = 12 + 6.6 * max(map(len, labels))
        bottom, top = AXIS_HEIGHT / LINES_HEIGHT, 1 - 8 / LINES_HEIGHT
        axes.set_position((left / WIDTH, bottom, (WIDTH - left - 14) / WIDTH, top - bottom))
        axes.grid(axis="y", color=_COLOURS["line"], linewidth=1, clip_on=False)
        for line in drawn:
            _draw_line(axes, line)
        return LineChart(title, x_label, drawn, len(known) - len(drawn), _svg(axes, "lines"))


def row_chart(rows: Sequence[Row], zero: bool = False, width: int = WIDTH) -> Markup:
    """Return rows over a shared axis as SVG; with `zero`, the axis includes 0, drawn as a strong line."""
    rows = rows[:MAX_ROWS]
    marks = [mark for row in rows for mark in row.marks()] + [0.0] * zero
    height = ROW_HEIGHT * len(rows) + AXIS_HEIGHT
    texts: list[str | Markup] = []
    with style.context(["default", _STYLE]):  # whatever the reader's matplotlibrc says
        axes = _axes(width, height)
        axes.set_position((14 / width, AXIS_HEIGHT / height, 1 - 28 / width, 1 - AXIS_HEIGHT / height))
        axes.set_xlim(*_set_ticks(axes.xaxis, marks or [0.0, 1.0], 5))
        axes.set_ylim(len(rows), 0)
        axes.yaxis.set_visible(False)
        axes.grid(axis="x", color=_COLOURS["line"], linewidth=1, clip_on=False)
        if zero:
            axes.axvline(0, color=_COLOURS["ink"], linewidth=1.5, clip_on=False)
        for n, row in enumerate(rows):
            _draw_row(axes, row, n + 0.72)
            for x, side, text in ((0, "left", _shortened(row.name)), (width, "right", row.text)):
                axes.figure.text(
                    x / width,
                    1 - (n + 0.4) * ROW_HEIGHT / height,
                    f"@{len(texts)}@",
                    ha=side,
                    color=_COLOURS["ink"],
                )
                texts.append(text)
        return _svg(axes, "rows", texts)


def thin_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return about `MAX_POINTS` points at most: the lowest and highest of each stretch, so that no spike is lost."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = -(-2 * len(points) // MAX_POINTS)
    extremes: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        extremes += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return extremes if extremes[-1] == points[-1] else [*extremes, points[-1]]


def _finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _axes(width: float, height: float) -> Axes:
    """Return axes without a frame, in a figure of `width` by `height` points."""
    axes = Figure(figsize=(width / 72, height / 72)).add_axes((0, 0, 1, 1), frameon=False)
    axes.set_axisbelow(True)
    axes.tick_params(left=False, bottom=False, labelcolor=_COLOURS["soft"], labelsize=10)
    return axes


def _set_ticks(
    axis: Axis, values: Sequence[float], wanted: int, integer: bool = False
) -> tuple[float, float]:
    """Set ticks at 1, 2 or 5 times a power of ten that cover `values`; return the first and the last."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    ticks = MaxNLocator(wanted, steps=[1, 2, 5, 10], integer=integer).tick_values(low, high)
    axis.set_ticks(ticks)
    if max(map(abs, ticks)) >= 1e4:
        axis.set_major_formatter(EngFormatter(sep=""))
    else:
        axis.axes.ticklabel_format(axis=axis.axis_name, style="plain", useOffset=False)  # pyright: ignore
    return ticks[0], ticks[-1]


def _draw_line(axes: Axes, line: Line) -> None:
    colour = _COLOURS[f"c{line.look % NUM_COLOURS}"]
    if line.steady:
        dots = {"linestyle": (0, (0.1, 2)), "dash_capstyle": "round"}
        axes.axhline(line.last, color=colour, linewidth=2, clip_on=False, **dots)
        return
    known = [(x, *band) for (x, _), band in zip(line.points, line.bands or (), strict=False)]
    known = [edges for edges in known if all(map(math.isfinite, edges))]
    if len(known) > 1:
        xs, lows, highs = zip(*known, strict=True)
        axes.fill(
            [*xs, *xs[::-1]], [*lows, *highs[::-1]], color=colour, alpha=0.16, linewidth=0, clip_on=False
        )
    whole = all(map(_finite, line.points))
    points = [(x, y if math.isfinite(y) else math.nan) for x, y in line.points if math.isfinite(x)]
    points = thin_points(points) if whole else points
    axes.plot(
        *zip(*points, strict=True), color=colour, linewidth=2, clip_on=False, linestyle=_dash(line.look)
    )
    gaps = [True, *(math.isnan(y) for _, y in points), True]
    alone = [p for n, p in enumerate(points) if not gaps[n + 1] and gaps[n] and gaps[n + 2]]
    _dots(axes, points if len(points) <= MAX_MARKED else alone, colour, 7)


def _dash(look: int) -> str | tuple[int, tuple[float, ...]]:
    return DASHES[look // NUM_COLOURS % len(DASHES)]


def _draw_row(axes: Axes, row: Row, y: float) -> None:
    colour = _COLOURS[f"c{row.look % NUM_COLOURS}"]

    def stroke(x: Sequence[float], ys: Sequence[float]) -> None:
        if all(map(math.isfinite, x)):
            axes.plot(x, ys, color=colour, linewidth=2, clip_on=False)

    if row.interval:
        low, high = row.interval
        stroke((low, low, low, high, high, high), (y - 0.12, y + 0.12, y, y, y + 0.12, y - 0.12))
    if row.start is not None and math.isfinite(row.start):
        stroke((row.start, row.value), (y, y))
        _dots(axes, [(row.start, y)], colour, 11)
        _dots(axes, [(row.start, y)], _COLOURS["back"], 7)
    if row.worst is not None:
        stroke((row.worst, row.worst), (y - 0.16, y + 0.16))
    _dots(axes, [(row.value, y)], colour, 9)


def _dots(axes: Axes, points: Sequence[tuple[float, float]], colour: str, size: float) -> None:
    """Draw dots as lines of zero length: matplotlib's markers need ids, which must be unique in a page."""
    xs = [x for point in points if _finite(point) for x in (point[0], point[0], math.nan)]
    ys = [y for point in points if _finite(point) for y in (point[1], point[1], math.nan)]
    axes.plot(xs, ys, color=colour, linewidth=size, solid_capstyle="round", clip_on=False)


def _shortened(name: str | Markup) -> str | Markup:
    """Return a name, with its middle cut out if it takes more than `MAX_NAME` columns."""
    if isinstance(name, Markup):
        return name
    wide = "".join(c + "\0" * (unicodedata.east_asian_width(c) in "WF") for c in name.replace("\0", "␀"))
    if len(wide) > MAX_NAME:
        wide = f"{wide[: MAX_NAME // 2]}…{wide[-MAX_NAME // 2 :]}"
    return wide.replace("\0", "")


def _svg(axes: Axes, kind: str, texts: Sequence[str | Markup] = ()) -> Markup:
    """Return the figure as an SVG element, with `texts` inserted for their placeholders."""
    buffer = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.patch.set_visible(False)
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("</defs>") + len("</defs>") : drawn.rindex("</svg>")]  # without its own style
    drawn = re.sub(r'</?g[^>]*>| transform="rotate\(-0 [^"]*"|font-family: [^;"]*;? ?', "", drawn)
    drawn = re.sub(r"#fade(..)", lambda found: f"var(--{_VARIABLES[int(found[1], 16)]})", drawn)
    drawn = re.sub(r"@(\d+)@", lambda found: escape(texts[int(found[1])]), drawn)
    drawn = re.sub(r"\s*\n\s*", " ", drawn)
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    hidden = "" if texts else ' aria-hidden="true"'  # the legend has a line chart's names and values
    return Markup(f'<svg class="{kind}" viewBox="0 0 {width} {height}"{hidden}>{drawn}</svg>')
