"""Whether the model uses a modality: the same metric with another example's input, and with none."""

import math

from markupsafe import Markup

from kebyt5_xm.evaluation.report.figures import Use
from kebyt5_xm.evaluation.report.markup import EMPTY, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import interval, number
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.rows import Row, row_chart
from kebyt5_xm.evaluation.report.tables import note, table
from kebyt5_xm.metrics.bootstrap import Score


def uses(record: Record) -> Markup:
    """Return the finding of each source and modality in a sentence, the charts, and the numbers."""
    found = all_uses(record)
    if not found:
        return note(
            say(
                "재지 않았습니다: 평가에 모달리티를 섞거나 뺀 답이 없습니다.",
                "Not measured: the evaluation has no answers with shuffled or absent inputs.",
            )
        )
    sentences = [element("li", sentence(source, use)) for source, use in _main(found)]
    charts = [
        row_chart(
            join([data(source), Markup(" · "), data(use.metric)]),
            [
                Row.of(say("제 입력", "its own input"), interval(use.real), use.real),
                Row.of(
                    say("다른 예제의 입력", "another example's"),
                    interval(use.shuffled),
                    use.shuffled,
                    colour=1,
                ),
                Row.of(say("입력 없음", "none"), interval(use.none), use.none, colour=4),
            ],
        )
        for source, use in _main(found)
    ]
    examples = (
        {source.use_examples for source in record.evaluation.sources.values() if source.uses}
        if record.evaluation
        else set()
    )
    return join(
        [
            element("ul", *sentences),
            *charts,
            _table(found),
            note(
                say(
                    "소스마다 예제 {}개로. 이득은 같은 예제끼리 견준 차이이고, 좋아지는 쪽이 양수입니다.",
                    "Over {} examples of a source. Gains compare the same examples, and better is positive.",
                    " – ".join(number(n) for n in sorted(examples)),
                )
            ),
        ]
    )


def all_uses(record: Record) -> list[tuple[str, Use]]:
    """Return (source, use) of all that was measured."""
    if record.evaluation is None:
        return []
    return [(name, use) for name, source in record.evaluation.sources.items() for use in source.uses]


def main_uses(record: Record) -> list[tuple[str, Use]]:
    """Return (source, use) of the first metric of every source and modality."""
    return _main(all_uses(record))


def _main(found: list[tuple[str, Use]]) -> list[tuple[str, Use]]:
    first: dict[tuple[str, str], Use] = {}
    for source, use in found:
        first.setdefault((source, use.modality), use)
    return [(source, use) for (source, _), use in first.items()]


def is_used(gain: Score) -> bool | None:
    """Say whether a gain's interval is above zero; None where it holds zero, or is below, or is not known."""
    if any(map(math.isnan, (gain.low, gain.high))):
        return None
    return True if gain.low > 0 else False if gain.high < 0 else None


def sentence(source: str, use: Use) -> Markup:
    """Return what the difference says, with its interval."""
    gain = use.gain_over_shuffled if not math.isnan(use.gain_over_shuffled.value) else use.gain_over_none
    shuffled = gain is use.gain_over_shuffled
    other = use.shuffled if shuffled else use.none
    names = (data(source), data(use.modality))
    numbers = (
        data(use.metric),
        number(use.real.value),
        number(other.value),
        element("b", interval(gain, plus=True), class_="n"),
    )
    against = (
        ("다른 예제의 입력이면", "with another example's") if shuffled else ("입력이 없으면", "with none")
    )
    tail = (
        f": {{}} {{}}, {against[0]} {{}}; 이득 {{}}.",
        f": {{}} {{}}, {against[1]} {{}}; gain {{}}.",
    )
    verdict = is_used(gain)
    head = {
        True: ("{}: {} 입력을 씁니다", "{}: it uses {}"),
        False: ("{}: {} 입력이 오히려 해가 됩니다", "{}: its {} makes it worse"),
        None: ("{}: {} 입력을 쓴다고 할 수 없습니다", "{}: it is not shown to use {}"),
    }[verdict]
    return say(head[0] + tail[0], head[1] + tail[1], *names, *numbers)


def gain_told(gain: Score) -> Markup:
    """Return a gain with its interval, marked by what it says."""
    classes = {True: "good", False: "bad", None: None}[is_used(gain)]
    return element("span", interval(gain, plus=True), class_=classes)


def _table(found: list[tuple[str, Use]]) -> Markup:
    rows = [
        [
            data(source),
            data(use.modality),
            join([data(use.metric), Markup(" ↑" if use.higher_is_better else " ↓")]),
            interval(use.real),
            interval(use.shuffled),
            interval(use.none),
            gain_told(use.gain_over_shuffled),
            gain_told(use.gain_over_none),
        ]
        for source, use in found
    ]
    header = [
        say("소스", "Source"),
        say("모달리티", "Modality"),
        say("지표", "Metric"),
        say("제 입력", "Own input"),
        say("다른 예제의", "Another's"),
        say("없음", "None"),
        say("다른 것보다", "Gain over another's"),
        say("없는 것보다", "Gain over none"),
    ]
    return table(header, rows, numbers=range(3, 8)) if rows else EMPTY
