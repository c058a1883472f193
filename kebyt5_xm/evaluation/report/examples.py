"""Predictions beside their references, with their media, and every byte that differs marked."""

import unicodedata
from collections.abc import Sequence
from pathlib import PurePath

from markupsafe import Markup

from kebyt5_xm.evaluation.report.answered import Answers, Prediction
from kebyt5_xm.evaluation.report.difference import (
    MOST_CHARACTERS,
    Character,
    Piece,
    differences,
    is_malformed,
    nearest,
)
from kebyt5_xm.evaluation.report.markup import EMPTY, Child, data, element, join, say, text
from kebyt5_xm.evaluation.report.media import MOST_BYTES, MediaShelf
from kebyt5_xm.evaluation.report.numbers import number, percent
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.scores import not_evaluated
from kebyt5_xm.evaluation.report.tables import folded, note

MOST_RUBIES = 6
"""Characters of a text whose bytes are written above them; more would hide the text."""
MOST_CHANCES = 5
MOST_OPEN = 6
"""Examples of a source that are seen at once; the rest opens at a click."""
MOST_OTHERS = 3


def examples(record: Record, shelf: MediaShelf) -> Markup:
    """Return, of each source, the first wrong outputs and some right ones, within the page's limits."""
    if not record.answers:
        return not_evaluated(record) if record.evaluation is None else _none_recorded()
    parts = [_legend()]
    for name, answers in record.answers.items():
        if answers.shown:
            parts += [
                element("h3", data(name), Markup(" "), element("small", _count(answers))),
                *_folded_after(MOST_OPEN, [_example(p, shelf) for p in answers.shown]),
            ]
    parts.append(_limits(record, shelf))
    return join(parts)


def _folded_after(count: int, shown: list[Markup]) -> list[Markup]:
    parts = [element("div", *shown[:count], class_="examples")]
    if rest := shown[count:]:
        told = say("{}개 더", "{} more", number(len(rest)))
        parts.append(folded(told, element("div", *rest, class_="examples")))
    return parts


def _none_recorded() -> Markup:
    return note(say("predictions.jsonl이 없습니다.", "There is no predictions.jsonl."))


def _legend() -> Markup:
    return note(
        say(
            "바이트 단위로 맞추어 본 차이: {} 정답에 있고 출력에 없는 바이트, {} 출력에 있고 정답에 없는 바이트. "
            "글자의 일부 바이트만 다르면 글자 위에 바이트를 적고 다른 것에 밑줄을 긋습니다. {} 같은 것은 글자가 "
            "되지 못한 바이트입니다.",
            "Differences by an alignment of bytes: {} bytes of the reference that the output lacks, {} bytes of the "
            "output that the reference lacks. Where only some of a character's bytes differ, they stand above it, "
            "the differing ones underlined. {} is a byte that is part of no character.",
            element("mark", say("이런", "such"), class_="lack"),
            element("mark", say("이런", "such"), class_="extra"),
            element("mark", "<EC>", class_="extra bytes"),
        )
    )


def _count(answers: Answers) -> Markup:
    return say(
        "{}개 중 맞은 것 {} ({}); 보인 것 {}",
        "{1} of {0} right ({2}); {3} shown",
        number(answers.total),
        number(answers.right),
        percent(answers.right / answers.total),
        number(len(answers.shown)),
    )


def _limits(record: Record, shelf: MediaShelf) -> Markup:
    total = sum(answers.total for answers in record.answers.values())
    shown = sum(len(answers.shown) for answers in record.answers.values())
    told = say(
        "출력 {}개 중 {}개를 보입니다: 소스마다 처음 틀린 것들, 그다음 처음 맞은 것 몇 개. 글은 {}자까지, 매체는 "
        "모두 합쳐 {} MB까지. 전부는 predictions.jsonl에 있습니다.",
        "{1} of {0} outputs are shown: of each source the first wrong ones, then some of the first right ones. Texts "
        "are cut at {2} characters, media end at {3} MB together. All of them are in predictions.jsonl.",
        number(total),
        number(shown),
        number(MOST_CHARACTERS),
        str(MOST_BYTES // 1_000_000),
    )
    if not shelf.left_out:
        return note(told)
    more = say("매체 {}개가 빠졌습니다.", "{} media were left out.", number(shelf.left_out))
    return note(join([told, Markup(" "), more]))


def _example(prediction: Prediction, shelf: MediaShelf) -> Markup:
    reference = ""
    if prediction.references:
        reference = prediction.references[nearest(prediction.references, prediction.prediction)]
    wanted, written, distance = differences(reference, prediction.prediction)
    others = [r for r in prediction.references if r != reference][:MOST_OTHERS]
    return element(
        "div",
        _place(prediction, distance, bool(prediction.references)),
        element("div", element("h4", say("입력", "Input")), *_prompt(prediction, shelf)),
        element(
            "div",
            element("h4", say("정답", "Reference")),
            _words(wanted, "lack", reference) if prediction.references else note(say("정답이 없음", "none")),
            *(element("p", say("또는 {}", "or {}", data(_cut(other))), class_="note") for other in others),
        ),
        element(
            "div",
            element("h4", say("출력", "Output")),
            _words(written, "extra", prediction.prediction),
            _chances(prediction),
        ),
        class_=f"example {'right' if prediction.agrees else 'wrong'}",
    )


def _place(prediction: Prediction, distance: int, comparable: bool) -> Markup:
    if prediction.agrees:
        verdict = element("span", "✓ ", say("맞음", "right"), class_="good")
    elif prediction.right is None:
        verdict = element("span", "≠ ", say("다름", "differs"), class_="bad")
    else:
        verdict = element("span", "✗ ", say("틀림", "wrong"), class_="bad")
    parts = [verdict]
    if comparable and distance:
        parts.append(say("{}바이트 차이", "bytes to edit: {}", number(distance)))
    if is_malformed(prediction.prediction):
        parts.append(element("span", say("UTF-8이 아님", "not UTF-8"), class_="bad"))
    where = f"{PurePath(prediction.path).name}:{prediction.line}" if prediction.path else f"#{prediction.row}"
    return element("div", *parts, data(where), class_="place")


def _prompt(prediction: Prediction, shelf: MediaShelf) -> list[Markup]:
    place = {key: getattr(prediction, key) for key in ("source", "row", "path", "line")}
    return [
        shelf.shown({**part, **place})
        if isinstance(part, dict)
        else element("p", data(_cut(part.strip(), MOST_CHARACTERS // 2)), class_="words prompt")
        for part in prediction.prompt
        if isinstance(part, dict) or part.strip()
    ]


def _words(found: Sequence[Piece], kind: str, whole: str) -> Markup:
    rubies = MOST_RUBIES
    shown: list[Markup] = []
    for piece in found:
        if piece.kind == "same":
            shown.append(text(piece.text))
        elif piece.kind == "byte":
            told = "".join(f"<{byte:02X}>" for c in piece.characters for byte in c.raw)
            shown.append(element("mark", told, class_=f"{kind} bytes"))
        elif piece.kind == "part" and len(piece.characters) <= rubies and _stand_alone(piece):
            rubies -= len(piece.characters)
            shown += [element("mark", element("ruby", *_ruby(c)), class_=kind) for c in piece.characters]
        else:
            shown.append(element("mark", _visible(piece.text), class_=kind))
    classes = "words ruby" if rubies < MOST_RUBIES else "words"
    remark = EMPTY
    if len(whole) > MOST_CHARACTERS:
        left_out = number(len(whole) - MOST_CHARACTERS)
        remark = element("small", say(" … {}자 더", " … {} more characters", left_out))
    elif not whole:
        remark = element("small", say("(빈 글)", "(empty)"))
    return element("p", element("bdi", *shown, lang="", dir="auto"), remark, class_=classes)


def _stand_alone(piece: Piece) -> bool:
    """Say whether its characters may be drawn one by one: those written from right to left mostly join."""
    return all(unicodedata.bidirectional(c.text) == "L" for c in piece.characters)


def _ruby(character: Character) -> list[Child]:
    told: list[Child] = []
    for byte, differs in zip(character.raw, character.differs, strict=True):
        told += [" " if told else "", element("b", f"{byte:02X}") if differs else f"{byte:02X}"]
    return [_visible(character.text), element("rt", *told, class_="bytes")]


def _visible(words: str) -> str:
    """Return marked text in which blanks are seen."""
    return words.replace(" ", "␣").replace("\n", "↵\n").replace("\t", "⇥")


def _cut(words: str, most: int = MOST_CHARACTERS) -> str:
    return words if len(words) <= most else words[:most] + "…"


def _chances(prediction: Prediction) -> Markup:
    if not prediction.probabilities:
        return EMPTY
    best = sorted(prediction.probabilities.items(), key=lambda entry: -entry[1])[:MOST_CHANCES]
    rows = [
        element(
            "li",
            data(label),
            element("div", class_="bar", style=f"width: {100 * min(1.0, max(0.0, p)):.1f}%"),
            element("span", percent(p), class_="n"),
        )
        for label, p in best
    ]
    return element("ul", *rows, class_="chances")
