"""What metrics.csv has over the steps, as charts: of one run, or of several over one another."""

from collections.abc import Callable, Collection, Iterable

from markupsafe import Markup

from kebyt5_xm.evaluation.report.chart import Line, grid, line_chart
from kebyt5_xm.evaluation.report.markup import EMPTY, Child, data, element, join, say
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.tables import folded, note

BASELINES = ("uniform", "unigram", "bigram")
MOST_CHARTS = 12
_ASIDE: dict[str, tuple[str, str]] = {
    "lr/": ("학습률", "Learning rate"),
    "padding/": ("빈자리의 비율", "Share of padding"),
    "scale_ratio/": (
        "어댑터 출력의 크기 ÷ 바이트 임베딩의 크기",
        "RMS of adapter outputs ÷ that of byte embeddings",
    ),
    "skipped/": ("건너뛴 예제의 비율", "Share of examples skipped"),
    "epochs/": ("에폭", "Epochs"),
}
"""Series drawn together, by the beginning of their names, in the fold."""

STEPS = say("최적화 단계", "optimizer step")


def curves(record: Record) -> Markup:
    """Return the charts of a run: losses and what is measured at validations, and the rest folded away."""
    if not record.series:
        return note(
            say(
                "기록이 없습니다: metrics.csv가 없거나 비어 있습니다.",
                "Nothing recorded: metrics.csv is absent or empty.",
            )
        )
    steady = [Line(data(f"val/{n}"), points) for n, points in record.below("val/").items() if n == "loss"]
    train = [Line(data(f"train/{n}"), points) for n, points in record.below("train/").items() if n == "loss"]
    charts = [
        line_chart(say("손실 (내트/바이트)", "Loss (nats per byte)"), STEPS, [*train, *steady]),
        line_chart(
            say("평가용 예제, 바이트당 비트", "Held out, bits per byte"), STEPS, _bits_per_byte(record)
        ),
        *(_metric_charts(record)),
    ]
    folds = [chart for chart in _aside(record) if chart]
    return join(
        [
            grid(charts[:MOST_CHARTS]),
            _left_out(len(charts) - MOST_CHARTS),
            folded(
                say(
                    "학습률, 빈자리, 속도와 그 밖의 곡선", "Learning rates, padding, speed, and other curves"
                ),
                grid(folds),
            )
            if folds
            else EMPTY,
        ]
    )


def _left_out(count: int) -> Markup:
    if count <= 0:
        return EMPTY
    return note(
        say(
            "{}개는 그리지 않았습니다; metrics.csv에 있습니다.",
            "{} more charts are left out; metrics.csv has their values.",
            str(count),
        )
    )


def _bits_per_byte(record: Record) -> list[Line]:
    parts = record.below("val/bits_per_byte")
    lines = [
        Line(data(name.removeprefix("/") or "all"), points)
        for name, points in sorted(parts.items())
        if points
    ]
    if len(parts) > 4:  # levels of every part would bury the curves
        return lines
    for name in BASELINES[1:]:
        for part, points in record.below(f"baseline/{name}/").items():
            lines.append(Line(data(f"{part}: {name}"), points[-1:], steady=True))
    return lines


def _metric_charts(record: Record) -> Iterable[Markup]:
    for metric, lines in validated_metrics(record).items():
        title = data(metric)
        yield line_chart(title, STEPS, [Line(data(source), points) for source, points in lines.items()])


def validated_metrics(record: Record) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the metrics of answers measured at validations: metric -> source -> points."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, points in record.below("val/").items():
        metric, _, source = name.partition("/")
        if source and metric not in ("loss", "bits_per_byte"):
            found.setdefault(metric, {})[source] = points
    return found


def _aside(record: Record) -> Iterable[Markup]:
    used = {"train/loss"}
    for prefix, (korean, english) in _ASIDE.items():
        series = record.below(prefix)
        used |= {prefix + name for name in series}
        yield line_chart(
            say(korean, english), STEPS, [Line(data(name), points) for name, points in series.items()]
        )
    of_parts = record.below("train/loss/")
    used |= {f"train/loss/{name}" for name in of_parts}
    yield line_chart(
        say("손실, 소스별 (내트/바이트)", "Loss by source (nats per byte)"),
        STEPS,
        [Line(data(name), points) for name, points in of_parts.items()],
    )
    val_loss = record.below("val/loss/")
    yield line_chart(
        say("평가용 손실, 소스별 (내트/바이트)", "Held-out loss by source (nats per byte)"),
        STEPS,
        [Line(data(name), points) for name, points in val_loss.items()],
    )
    elsewhere = ("val/", "baseline/", "forgetting/")
    rest = [name for name in record.series if name not in used and not name.startswith(elsewhere)]
    for name in rest[:MOST_CHARTS]:
        yield line_chart(data(name), STEPS, [Line(data(name), record.series[name])])


def over_one_another(
    records: list[Record], name: Callable[[int], Child], without: Collection[str] = ()
) -> Markup:
    """Return one chart a metric with a line a run, but for those `without`; `name` is that of run number i."""
    told = {"train/loss": say("학습 손실 (내트/바이트)", "Training loss (nats per byte)")}
    told["val/loss"] = say("평가용 손실 (내트/바이트)", "Held-out loss (nats per byte)")
    told["val/bits_per_byte"] = say("평가용 예제, 바이트당 비트", "Held out, bits per byte")
    wanted = list(told)
    for record in records:
        wanted += [n for n in record.series if n.startswith("val/") and not n.startswith("val/loss/")]
    charts = []
    for metric in (metric for metric in dict.fromkeys(wanted) if metric not in without):
        lines = [Line(name(number), record.series.get(metric, [])) for number, record in enumerate(records)]
        chart = line_chart(told.get(metric) or data(metric.removeprefix("val/")), STEPS, lines)
        charts += [chart] if chart else []
    return join([grid(charts[:MOST_CHARTS]), _left_out(len(charts) - MOST_CHARTS)]) or element(
        "p", say("기록된 곡선이 없습니다.", "No curves are recorded."), class_="note"
    )
