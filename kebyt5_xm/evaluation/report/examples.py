"""Predictions and their references as a page shows them: the bytes that differ in pieces, and the media."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from kebyt5_xm.evaluation.report.answered import Answers, Prediction
from kebyt5_xm.evaluation.report.difference import MOST_CHARACTERS, Piece, differences, is_malformed, nearest
from kebyt5_xm.evaluation.report.media import MOST_BYTES, MediaShelf, Shown
from kebyt5_xm.evaluation.report.recorded import Record

MAX_RUBIES = 6
"""Characters of a text whose bytes are written above them; more would hide the text."""
MAX_PROBABILITIES, MAX_OTHERS = 5, 3


@dataclass(frozen=True)
class ShownPiece:
    """Text that is marked alike; a `part` is one character, with its bytes in hex and whether each differs."""

    kind: str
    text: str
    bytes: Sequence[tuple[str, bool]] = ()


@dataclass(frozen=True)
class ShownText:
    """A text in pieces; `left_out` characters follow."""

    pieces: list[ShownPiece]
    left_out: int

    @property
    def has_ruby(self) -> bool:
        return any(piece.kind == "part" for piece in self.pieces)

    @property
    def is_empty(self) -> bool:
        return not self.pieces


@dataclass(frozen=True)
class Example:
    """A prediction beside the nearest of its references; `distance` is the bytes to edit."""

    is_right: bool
    is_judged: bool
    is_malformed: bool
    place: str
    prompt: list[str | Shown]
    reference: ShownText | None
    others: list[str]
    output: ShownText
    distance: int
    probabilities: list[tuple[str, float]]


@dataclass(frozen=True)
class Examples:
    """The examples of each source, and the limits that they are shown within."""

    sources: list[tuple[str, Answers, list[Example]]]
    media_left_out: int
    max_characters: int = MOST_CHARACTERS
    max_megabytes: int = MOST_BYTES // 1_000_000

    @property
    def num_shown(self) -> int:
        return sum(len(shown) for _, _, shown in self.sources)


def examples(record: Record, shelf: MediaShelf) -> Examples:
    """Return, of each source, the first wrong outputs and some right ones, within the page's limits."""
    sources = [(name, a, [_example(p, shelf) for p in a.shown]) for name, a in record.answers.items()]
    return Examples(sources, shelf.left_out)


def _example(prediction: Prediction, shelf: MediaShelf) -> Example:
    references, written = prediction.references, prediction.prediction
    reference = references[nearest(references, written)] if references else ""
    wanted, output, distance = differences(reference, written)
    probabilities = sorted((prediction.probabilities or {}).items(), key=lambda entry: -entry[1])
    path = PurePath(prediction.path).name
    return Example(
        is_right=prediction.agrees,
        is_judged=prediction.right is not None,
        is_malformed=is_malformed(written),
        place=f"{path}:{prediction.line}" if prediction.path else f"#{prediction.row}",
        prompt=_prompt(prediction, shelf),
        reference=_text(wanted, reference) if references else None,
        others=[_cut(r, MOST_CHARACTERS) for r in references if r != reference][:MAX_OTHERS],
        output=_text(output, written),
        distance=distance,
        probabilities=[(label, min(1.0, max(0.0, p))) for label, p in probabilities[:MAX_PROBABILITIES]],
    )


def _prompt(prediction: Prediction, shelf: MediaShelf) -> list[str | Shown]:
    place = {key: getattr(prediction, key) for key in ("source", "row", "path", "line")}
    return [
        shelf.shown({**part, **place}) if isinstance(part, dict) else _cut(part.strip(), MOST_CHARACTERS // 2)
        for part in prediction.prompt
        if isinstance(part, dict) or part.strip()
    ]


def _text(pieces: Sequence[Piece], whole: str) -> ShownText:
    return ShownText(list(_pieces(pieces)), max(0, len(whole) - MOST_CHARACTERS))


def _pieces(pieces: Sequence[Piece]) -> Iterator[ShownPiece]:
    rubies = MAX_RUBIES
    for piece in pieces:
        if piece.kind == "same":
            yield ShownPiece("same", piece.text)
        elif piece.kind == "byte":
            yield ShownPiece("byte", "".join(f"<{byte:02X}>" for c in piece.characters for byte in c.raw))
        elif piece.kind == "part" and len(piece.characters) <= rubies and _stand_alone(piece):
            rubies -= len(piece.characters)
            for c in piece.characters:
                raw = [(f"{byte:02X}", differs) for byte, differs in zip(c.raw, c.differs, strict=True)]
                yield ShownPiece("part", _visible(c.text), raw)
        else:
            yield ShownPiece("other", _visible(piece.text))


def _stand_alone(piece: Piece) -> bool:
    """Return whether its characters may be drawn one by one: those written from right to left mostly join."""
    return all(unicodedata.bidirectional(c.text) == "L" for c in piece.characters)


def _visible(words: str) -> str:
    """Return marked text in which blanks are seen."""
    return words.replace(" ", "␣").replace("\n", "↵\n").replace("\t", "⇥")


def _cut(words: str, length: int) -> str:
    return words if len(words) <= length else words[:length] + "…"
