"""The metrics of each source with their intervals, and how an interval is to be read."""

from markupsafe import Markup

from kebyt5_xm.evaluation.report.figures import Evaluation, Source
from kebyt5_xm.evaluation.report.markup import Child, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import NONE, interval, number
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.rows import Row, row_chart
from kebyt5_xm.evaluation.report.tables import note, table

MOST_ROWS = 40


def scores(record: Record) -> Markup:
    """Return a chart a metric and the table of all."""
    evaluation = record.evaluation
    if evaluation is None:
        return not_evaluated(record)
    charts = []
    for metric, higher in metrics_of(evaluation).items():
        rows = [
            Row.of(data(name), interval(source.metrics[metric].score), source.metrics[metric].score)
            for name, source in evaluation.sources.items()
            if metric in source.metrics
        ]
        charts.append(row_chart(metric_title(metric, higher), rows[:MOST_ROWS]))
        if len(rows) > MOST_ROWS:
            charts.append(
                note(
                    say(
                        "{}개는 아래 표에만 있습니다.",
                        "{} more are in the table below only.",
                        str(len(rows) - MOST_ROWS),
                    )
                )
            )
    return join([how_to_read(evaluation), *charts, _table(evaluation)])


def metrics_of(*evaluations: Evaluation) -> dict[str, bool]:
    """Return the metrics of all sources, and whether higher is better."""
    return {
        metric: measured.higher_is_better
        for evaluation in evaluations
        for source in evaluation.sources.values()
        for metric, measured in source.metrics.items()
    }


def metric_title(metric: str, higher_is_better: bool) -> Markup:
    """Return a metric's name with the direction that is better."""
    way = (
        say("높을수록 좋음 ↑", "higher is better ↑")
        if higher_is_better
        else say("낮을수록 좋음 ↓", "lower is better ↓")
    )
    return join([data(metric), Markup(" "), element("small", way)])


def how_to_read(evaluation: Evaluation) -> Markup:
    """Return what the numbers in brackets are."""
    return note(
        say(
            "대괄호 안은 {} % 신뢰구간: 같은 답들에서 예제를 {}번 다시 뽑은 부트스트랩. 다른 평가용 예제를 "
            "썼더라도 값이 들어갈 만한 범위이며, 다른 시드로 다시 학습했을 때의 차이는 담지 않습니다.",
            "In brackets the {} % confidence interval: a bootstrap over the same answers, {} resamples of the "
            "examples. It is the range to expect of other held-out examples; what another seed of training would "
            "change is not in it.",
            f"{100 * evaluation.confidence:g}",
            number(evaluation.resamples) if evaluation.resamples else NONE,
        )
    )


def _skipped(source: Source) -> Child:
    """Return how many held-out examples were not answered, and how many of them the metrics take for wrong."""
    if not source.counted_as_wrong:
        return number(source.skipped)
    return say(
        "{}, 그중 {}개는 틀린 답으로 셈",
        "{}, {} of them counted as wrong",
        number(source.skipped),
        number(source.counted_as_wrong),
    )


def _table(evaluation: Evaluation) -> Markup:
    rows: list[list[Child]] = []
    for name, source in evaluation.sources.items():
        for number_, (metric, measured) in enumerate(source.metrics.items()):
            first = number_ == 0
            rows.append(
                [
                    data(name),
                    data(metric),
                    element("b", number(measured.score.value)),
                    f"{number(measured.score.low)} – {number(measured.score.high)}",
                    number(source.examples) if first else "",
                    _skipped(source) if first else "",
                    _answers(source.labels) if first else "",
                ]
            )
    header = [
        say("소스", "Source"),
        say("지표", "Metric"),
        say("값", "Value"),
        say("{} % 구간", "{} % interval", f"{100 * evaluation.confidence:g}"),
        say("예제", "Examples"),
        say("건너뜀", "Skipped"),
        say("답의 형태", "Answers"),
    ]
    return table(header, rows, numbers=(2, 3, 4, 5))


def _answers(labels: list[str] | None) -> Markup:
    if labels is None:
        return say("자유로운 글", "free text")
    return say("레이블 {}개 중 하나", "one of {} labels", number(len(labels)))


def not_evaluated(record: Record) -> Markup:
    """Return that there is no evaluation, and the command that makes one."""
    return element(
        "div",
        element("p", say("아직 평가하지 않은 실행입니다.", "This run has not been evaluated yet.")),
        element(
            "p",
            say(
                "{} 로 가장 좋은 체크포인트를 평가하면 이 부분이 채워집니다.",
                "{} evaluates its best checkpoint and fills this in.",
                element("code", f"kebyt5-xm report {record.path}"),
            ),
        ),
        class_="missing",
    )
