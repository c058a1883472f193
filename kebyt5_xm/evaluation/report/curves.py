"""Line charts: the metrics of metrics.csv over the steps, and metrics over the strength of a perturbation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kebyt5_xm.evaluation.evaluation_file import Curve, Robustness
from kebyt5_xm.evaluation.report.charts import Line, LineChart, line_chart
from kebyt5_xm.evaluation.report.record import Record
from kebyt5_xm.evaluation.report.text_ability import BASELINES
from kebyt5_xm.evaluation.report.wording import bilingual, data

MAX_CHARTS = 12
MAX_PARTS_WITH_BASELINES = 4
"""With more parts, the levels would hide the curves."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """The charts shown at once, the number left out, and those in the fold (`aside`)."""

    shown: list[LineChart]
    left_out: int
    aside: Sequence[LineChart] = ()


def draw_curves(record: Record) -> Curves:
    """Return the charts of a run: losses and validation metrics, and the rest for the fold."""
    losses = {n: record.series[n] for n in ("train/loss", "val/loss") if n in record.series}
    titled = [
        (bilingual("Loss (nats per byte)"), _lines(losses)),
        (bilingual("Held out, bits per byte"), _bits_per_byte(record)),
        *((data(metric), _lines(sources)) for metric, sources in list_validated_metrics(record).items()),
    ]
    return Curves(*_drawn(titled), _aside(record))


def overlay_curves(records: Sequence[Record], names: Sequence[str], without: Collection[str] = ()) -> Curves:
    """Return a chart for every metric except `without`, with a line for each run."""
    titles = {
        "train/loss": bilingual("Training loss (nats per byte)"),
        "val/loss": bilingual("Held-out loss (nats per byte)"),
        "val/bits_per_byte": bilingual("Held out, bits per byte"),
    }
    wanted = dict.fromkeys(titles)
    for record in records:
        wanted |= dict.fromkeys(
            n for n in record.series if n.startswith("val/") and not n.startswith("val/loss/")
        )
    titled = [
        (
            titles.get(metric) or data(metric.removeprefix("val/")),
            [Line(names[n], r.series.get(metric, []), look=n) for n, r in enumerate(records)],
        )
        for metric in wanted
        if metric not in without
    ]
    return Curves(*_drawn(titled))


def list_validated_metrics(record: Record) -> dict[str, dict[str, Points]]:
    """Return the metrics of answers at validations: metric -> source -> points."""
    found: dict[str, dict[str, Points]] = {}
    for name, points in record.below("val/").items():
        metric, _, source = name.partition("/")
        if source and metric not in ("loss", "bits_per_byte"):
            found.setdefault(metric, {})[source] = points
    return found


def robustness_charts(found: Robustness) -> list[LineChart]:
    """Return a chart for every perturbation and metric, with the clean level dotted."""
    charts = []
    for curve in found.curves:
        for metric, points in curve.by_metric().items():
            lines = [robustness_line(metric, curve, metric, 0)]
            if metric in found.clean:
                level = [(points[0][0], found.clean[metric].value)]
                lines.append(Line(bilingual("undisturbed"), level, steady=True, look=1))
            charts.append(robustness_chart(curve, metric, lines))
    return [chart for chart in charts if chart]


def robustness_line(name: str, curve: Curve, metric: str, look: int) -> Line:
    """Return a metric along a curve, with its intervals."""
    points = curve.by_metric().get(metric, [])
    return Line(name, [(x, s.value) for x, s in points], [(s.low, s.high) for _, s in points], look=look)


def robustness_chart(
    curve: Curve, metric: str, lines: Sequence[Line], source: str | None = None
) -> LineChart | None:
    """Return a chart over the strength of a perturbation, titled with its name and the metric's."""
    title = Markup(" · ").join(
        data(part) for part in (source, curve.perturbation, metric) if part is not None
    )
    strength = bilingual("strength ({unit})", unit=data(curve.unit)) if curve.unit else bilingual("strength")
    return line_chart(title, strength, lines)


def _lines(series: Mapping[str, Points]) -> list[Line]:
    return [Line(name, points, look=n) for n, (name, points) in enumerate(series.items())]


def _drawn(titled: Sequence[tuple[Markup, Sequence[Line]]]) -> tuple[list[LineChart], int]:
    """Return the first `MAX_CHARTS` charts that have a point, and the number of the others."""
    drawable = [(title, lines) for title, lines in titled if any(line.is_drawable for line in lines)]
    charts = [line_chart(title, bilingual("optimizer step"), lines) for title, lines in drawable[:MAX_CHARTS]]
    return [chart for chart in charts if chart], len(drawable) - len(charts)


def _bits_per_byte(record: Record) -> list[Line]:
    parts = record.below("val/bits_per_byte")
    lines = [
        (name.removeprefix("/") or "all", points, False) for name, points in sorted(parts.items()) if points
    ]
    if len(parts) <= MAX_PARTS_WITH_BASELINES:
        for name in BASELINES[1:]:
            levels = record.below(f"baseline/{name}/")
            lines += [(f"{part}: {name}", points[-1:], True) for part, points in levels.items()]
    return [Line(name, points, steady=steady, look=n) for n, (name, points, steady) in enumerate(lines)]


def _aside(record: Record) -> list[LineChart]:
    together = {
        "lr/": bilingual("Learning rate"),
        "padding/": bilingual("Share of padding"),
        "scale_ratio/": bilingual("RMS of adapter outputs ÷ that of byte embeddings"),
        "skipped/": bilingual("Share of examples skipped"),
        "epochs/": bilingual("Epochs"),
        "train/loss/": bilingual("Loss by source (nats per byte)"),
        "val/loss/": bilingual("Held-out loss by source (nats per byte)"),
    }
    titled = [(title, _lines(record.below(prefix))) for prefix, title in together.items()]
    drawn = (*together, "train/loss", "val/", "baseline/", "forgetting/")
    rest = [name for name in record.series if not name.startswith(drawn)]
    alone = [(data(name), _lines({name: record.series[name]})) for name in rest]
    return _drawn(titled)[0] + _drawn(alone)[0]
