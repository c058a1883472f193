"""How metrics fall as inputs are disturbed."""

from collections.abc import Iterator

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import Line, grid, line_chart
from kebyt5_xm.evaluation.report.figures import Curve, Robustness
from kebyt5_xm.evaluation.report.markup import Child, code, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import interval, number
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.tables import folded, note, table


def robustness(record: Record) -> Markup:
    """Return a chart for every source, perturbation and metric, the level without one dashed."""
    evaluation = record.evaluation
    measured = (
        {name: source.robustness for name, source in evaluation.sources.items() if source.robustness}
        if evaluation
        else {}
    )
    if not measured:
        return note(
            say(
                "재지 않았습니다 (오래 걸립니다): {}",
                "Not measured, since it takes time: {}",
                code(f"kebyt5-xm report {record.path} --robustness"),
            )
        )
    parts = []
    for name, found in measured.items():
        parts += [
            element(
                "h3",
                data(name),
                Markup(" "),
                element("small", say("예제 {}개", "{} examples", number(found.examples))),
            ),
            grid(_charts(found)),
            folded(say("숫자", "The numbers"), _table(found)),
        ]
    return join(parts)


def _charts(found: Robustness) -> Iterator[Markup]:
    for curve in found.curves:
        for metric, points in curve.points.items():
            lines = [_line(data(metric), points)]
            if metric in found.clean:
                level = found.clean[metric].value
                lines.append(
                    Line(say("건드리지 않은 입력", "undisturbed"), [(points[0][0], level)], steady=True)
                )
            yield line_chart(curve_title(curve, metric), strength(curve), lines)


def curve_title(curve: Curve, metric: str) -> Markup:
    """Return what is disturbed, and the metric."""
    return join([data(curve.perturbation), Markup(" · "), data(metric)])


def strength(curve: Curve) -> Child:
    """Return the label of the axis, with its unit."""
    return say("세기 ({})", "strength ({})", data(curve.unit)) if curve.unit else say("세기", "strength")


def line_of(name: Child, curve: Curve, metric: str) -> Line:
    """Return a metric along a curve, with its intervals."""
    return _line(name, curve.points.get(metric, []))


def _line(name: Child, points: list) -> Line:
    return Line(name, [(x, s.value) for x, s in points], [(s.low, s.high) for _, s in points])


def _table(found: Robustness) -> Markup:
    rows: list[list[Child]] = [
        [say("건드리지 않음", "undisturbed"), "", "", data(metric), interval(score)]
        for metric, score in found.clean.items()
    ]
    rows += [
        [data(curve.perturbation), f"{x:g}", data(curve.unit), data(metric), interval(score)]
        for curve in found.curves
        for metric, points in curve.points.items()
        for x, score in points
    ]
    header = [
        say("방해", "Perturbation"),
        say("세기", "Strength"),
        say("단위", "Unit"),
        say("지표", "Metric"),
        say("값과 구간", "Value and interval"),
    ]
    return table(header, rows, numbers=(1, 4))
