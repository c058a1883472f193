"""The page of a search: the curve of the range test, and the losses of the short runs."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from kebyt5_xm.evaluation.report import write_page as write_html
from kebyt5_xm.evaluation.report.charts import Line, LineChart, line_chart
from kebyt5_xm.evaluation.report.pages import render

if TYPE_CHECKING:
    from kebyt5_xm.commands.tune.search import Found

AXIS = Markup("learning rate, as its decimal logarithm (−2 is 0.01)")


def write_page(found: "Found", recipes: str, out: Path) -> None:
    """Write the page of `found`. Raises `UserError`."""
    charts = [chart for chart in (_range_chart(found), _runs_chart(found)) if chart is not None]
    html = render(
        "tune.html.j2",
        language="en",
        title=f"Learning rate of {recipes}",
        recipes=recipes,
        rate=f"{found.rate:g}",
        reason=found.reason,
        charts=charts,
        runs=sorted(found.losses.items()),
    )
    write_html(html, out)


def _range_chart(found: "Found") -> LineChart | None:
    places = [math.log10(point.rate) for point in found.points]
    losses = [(x, point.loss) for x, point in zip(places, found.points, strict=True)]
    smoothed = [(x, point.smoothed) for x, point in zip(places, found.points, strict=True)]
    return line_chart(
        Markup("Range test: training loss while the rate rises (nats per byte)"),
        AXIS,
        [Line(Markup("each step"), losses, look=1), Line(Markup("smoothed"), smoothed)],
    )


def _runs_chart(found: "Found") -> LineChart | None:
    judge = "held-out" if found.held_out else "training"
    points = [(math.log10(rate), loss) for rate, loss in sorted(found.losses.items())]
    title = Markup("Short runs: {} loss after {} steps (nats per byte)").format(judge, found.steps)
    return line_chart(title, AXIS, [Line(Markup("short runs"), points)])
