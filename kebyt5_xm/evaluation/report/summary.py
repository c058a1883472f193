"""The top of the page: how good, is text kept, is the modality used, how many outputs were malformed."""

from markupsafe import Markup

from kebyt5_xm.evaluation.report.figures import Evaluation, Measured
from kebyt5_xm.evaluation.report.kept import kept_chart, verdict
from kebyt5_xm.evaluation.report.markup import EMPTY, Child, data, element, join, say
from kebyt5_xm.evaluation.report.numbers import NONE, interval, number, percent, signed
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.tables import note
from kebyt5_xm.evaluation.report.uses import is_used, main_uses, sentence

MOST_LINES = 6


def summary(record: Record) -> Markup:
    """Return the four answers."""
    return element(
        "div", _how_good(record), _is_text_kept(record), _is_used(record), _malformed(record), class_="cards"
    )


def _card(question: Child, *content: Child) -> Markup:
    return element("div", element("h3", question), *content, class_="card")


def _big(content: Child) -> Markup:
    return element("p", content, class_="big")


# -- how good --------------------------------------------------------------------------------------


def main_metrics(evaluation: Evaluation) -> dict[str, tuple[str, Measured]]:
    """Return source -> (name, value) of each source's first metric."""
    return {
        name: next(iter(source.metrics.items()))
        for name, source in evaluation.sources.items()
        if source.metrics
    }


def _how_good(record: Record) -> Markup:
    question = say("얼마나 잘하는가?", "How good is it?")
    evaluation = record.evaluation
    bits = record.last("val/bits_per_byte")
    text = (
        element(
            "p",
            say("평가용 전체: 바이트당 {}비트", "all held out: {} bits per byte", number(bits)),
            class_="note",
        )
        if bits is not None
        else EMPTY
    )
    if evaluation is None:
        return _card(
            question,
            _big(number(bits) if bits is not None else "?"),
            element(
                "p",
                say(
                    "평가용 예제 전체의 바이트당 비트. 답은 아직 평가하지 않음.",
                    "bits per byte of all that is held out. Answers: not evaluated yet.",
                )
                if bits is not None
                else say("아직 평가하지 않음.", "Not evaluated yet."),
            ),
        )
    best = main_metrics(evaluation)
    if not best:
        return _card(question, _big("?"), element("p", say("지표가 없음.", "No metrics.")), text)
    if len(best) == 1:
        source, (metric, measured) = next(iter(best.items()))
        score = measured.score
        return _card(
            question,
            _big(number(score.value)),
            element("p", data(source), ": ", data(metric), f" [{number(score.low)}, {number(score.high)}]"),
            text,
        )
    lines = [
        element(
            "li",
            element("span", data(source), " ", element("small", data(metric), _way(measured))),
            element("b", interval(measured.score), class_="n"),
        )
        for source, (metric, measured) in list(best.items())[:MOST_LINES]
    ]
    return _card(question, element("ul", *lines), _more(len(best)), text)


def _way(measured: Measured) -> str:
    return " ↑" if measured.higher_is_better else " ↓"


def _more(count: int) -> Markup:
    if count <= MOST_LINES:
        return EMPTY
    return note(say("그리고 {}개 더 아래에", "and {} more below", str(count - MOST_LINES)))


# -- is text kept ----------------------------------------------------------------------------------


def _is_text_kept(record: Record) -> Markup:
    question = say("글 실력은 지켜졌는가?", "Is its ability on text kept?")
    parts = record.forgetting
    if not parts:
        return _card(question, _big("?"), element("p", say("재지 않음.", "Not measured in this run.")))
    worst = max(part.change for part in parts.values())
    shown = dict(sorted(parts.items(), key=lambda entry: -entry[1].change)[:MOST_LINES])
    return _card(
        question,
        _big(join([text_kept_told(worst), Markup(" "), element("small", say("비트/바이트", "bits/byte"))])),
        verdict(parts),
        kept_chart(shown, short=True),
        _more(len(parts)),
    )


def text_kept_told(worst: float) -> Markup:
    """Return the largest change of bits per byte, marked by its direction."""
    return element("span", signed(worst), class_="good" if worst <= 0 else "bad")


# -- is the modality used --------------------------------------------------------------------------


def _is_used(record: Record) -> Markup:
    question = say("모달리티를 실제로 쓰는가?", "Does it use the modality?")
    found = main_uses(record)
    if not found:
        modalities = (record.config.get("model") or {}).get("modalities")
        told = (
            say("재지 않음.", "Not measured.")
            if modalities
            else say("글만 다루는 실행: 모달리티가 없음.", "A run on text alone: it has no modality.")
        )
        return _card(question, _big("?" if modalities else NONE), element("p", told))
    verdicts = [is_used(use.gain_over_shuffled) for _, use in found]
    big = (
        element("span", say("예", "yes"), class_="good")
        if all(verdicts)
        else element("span", say("보이지 않음", "not shown"), class_="bad")
        if not any(verdicts)
        else element(
            "span",
            say("{}개 중 {}개", "{1} of {0}", str(len(verdicts)), str(sum(map(bool, verdicts)))),
            class_="bad",
        )
    )
    sentences = [element("p", sentence(source, use)) for source, use in found[:MOST_LINES]]
    return _card(question, _big(big), *sentences, _more(len(found)))


# -- malformed -------------------------------------------------------------------------------------


def malformed(record: Record) -> tuple[int, int]:
    """Return the outputs that are no UTF-8, or none of the labels, and how many outputs there are."""
    bad = 0
    for name, answers in record.answers.items():
        source = record.evaluation.sources.get(name) if record.evaluation else None
        if source is None or source.labels is not None or source.malformed is None:
            bad += answers.malformed
        else:
            bad += round(source.malformed * source.examples)
    return bad, sum(answers.total for answers in record.answers.values())


def _malformed(record: Record) -> Markup:
    question = say("잘못된 형식의 출력은?", "How many outputs were malformed?")
    bad, total = malformed(record)
    if not total:
        return _card(question, _big("?"), element("p", say("출력이 기록되지 않음.", "No outputs recorded.")))
    sources = record.evaluation.sources if record.evaluation else {}
    labelled = [a for n, a in record.answers.items() if n in sources and sources[n].labels is not None]
    of_labels, none_of_them = sum(a.total for a in labelled), sum(a.malformed for a in labelled)
    remarks = []
    if total > of_labels:
        remarks.append(
            say(
                "자유로운 글 {}개: UTF-8이 아닌 출력을 셈.",
                "{} of free text: those that are not UTF-8 count.",
                number(total - of_labels),
            )
        )
    if none_of_them:
        remarks.append(
            say(
                "레이블 {}개: 그중 {}개는 어느 레이블도 아님.",
                "{} of labels: {} of them are none of the labels.",
                number(of_labels),
                number(none_of_them),
            )
        )
    elif of_labels:
        remarks.append(
            say(
                "레이블 {}개: 답을 레이블 중에서만 고르므로 있을 수 없음.",
                "{} of labels: impossible by construction, answers are chosen among the labels.",
                number(of_labels),
            )
        )
    return _card(
        question,
        _big(element("span", percent(bad / total), class_="bad" if bad else "good")),
        element("p", say("{}개 중 {}개", "{1} of {0} outputs", number(total), number(bad))),
        *(element("p", remark, class_="note") for remark in remarks),
        _other_malformed(record),
    )


def _other_malformed(record: Record) -> Markup:
    """Return what the metric `kebyt5_xm.metrics.Malformed` found, where a recipe asks for numbers or labels."""
    lines = [
        element(
            "li",
            element("span", data(name), " ", element("small", data(metric))),
            element("b", interval(measured.score), class_="n"),
        )
        for name, source in (record.evaluation.sources.items() if record.evaluation else ())
        for metric, measured in source.metrics.items()
        if metric.startswith("malformed")
    ]
    return element("ul", *lines[:MOST_LINES]) if lines else EMPTY
