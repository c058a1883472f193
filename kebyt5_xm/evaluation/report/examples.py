"""Examples as a page shows them: predictions and references with their differing bytes marked, and media."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from kebyt5_xm.evaluation.report.difference import (
    MAX_CHARACTERS,
    Piece,
    find_nearest,
    is_malformed,
    mark_differences,
)
from kebyt5_xm.evaluation.report.media import MAX_BYTES, MediaRenderer, ShownMedium
from kebyt5_xm.evaluation.report.predictions import Prediction, SourcePredictions
from kebyt5_xm.evaluation.report.record import Record

MAX_RUBIES = 6
"""Characters of a text that have their bytes written above them; more would hide the text."""
MAX_PROBABILITIES, MAX_OTHERS = 5, 3


@dataclass(frozen=True)
class ShownPiece:
    """Text with one kind of mark; a `part` is one character, with (hex byte, whether it differs) in `bytes`."""

    kind: str
    text: str
    bytes: Sequence[tuple[str, bool]] = ()


@dataclass(frozen=True)
class ShownText:
    """A text in pieces; `left_out` characters after them are not shown."""

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
    """A prediction and the nearest of its references; `distance` is the number of bytes to edit."""

    is_right: bool
    is_judged: bool
    is_malformed: bool
    place: str
    prompt: list[str | ShownMedium]
    reference: ShownText | None
    others: list[str]
    output: ShownText
    distance: int
    probabilities: list[tuple[str, float]]


@dataclass(frozen=True)
class Examples:
    """The examples of each source, and the limits of the page."""

    sources: list[tuple[str, SourcePredictions, list[Example]]]
    media_left_out: int
    max_characters: int = MAX_CHARACTERS
    max_megabytes: int = MAX_BYTES // 1_000_000

    @property
    def num_shown(self) -> int:
        return sum(len(shown) for _, _, shown in self.sources)


def show_examples(record: Record, renderer: MediaRenderer) -> Examples:
    """Return the first wrong outputs and some right ones of each source, within the page's limits."""
    sources = [(name, a, [_example(p, renderer) for p in a.shown]) for name, a in record.predictions.items()]
    return Examples(sources, renderer.left_out)


def _example(prediction: Prediction, renderer: MediaRenderer) -> Example:
    references, output = prediction.references, prediction.prediction
    reference = references[find_nearest(references, output)] if references else ""
    reference_pieces, output_pieces, distance = mark_differences(reference, output)
    probabilities = sorted((prediction.probabilities or {}).items(), key=lambda entry: -entry[1])
    path = PurePath(prediction.path).name
    return Example(
        is_right=prediction.is_right,
        is_judged=prediction.right is not None,
        is_malformed=is_malformed(output),
        place=f"{path}:{prediction.line}" if prediction.path else f"#{prediction.row}",
        prompt=_prompt(prediction, renderer),
        reference=_text(reference_pieces, reference) if references else None,
        others=[_cut(r, MAX_CHARACTERS) for r in references if r != reference][:MAX_OTHERS],
        output=_text(output_pieces, output),
        distance=distance,
        probabilities=[(label, min(1.0, max(0.0, p))) for label, p in probabilities[:MAX_PROBABILITIES]],
    )


def _prompt(prediction: Prediction, renderer: MediaRenderer) -> list[str | ShownMedium]:
    place = {key: getattr(prediction, key) for key in ("source", "row", "path", "line")}
    return [
        renderer.render({**part, **place})
        if isinstance(part, dict)
        else _cut(part.strip(), MAX_CHARACTERS // 2)
        for part in prediction.prompt
        if isinstance(part, dict) or part.strip()
    ]


def _text(pieces: Sequence[Piece], whole: str) -> ShownText:
    return ShownText(list(_pieces(pieces)), max(0, len(whole) - MAX_CHARACTERS))


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
    """Return whether the characters may be drawn one by one: those of right-to-left scripts mostly join."""
    return all(unicodedata.bidirectional(c.text) == "L" for c in piece.characters)


def _visible(words: str) -> str:
    """Return marked text with visible blanks."""
    return words.replace(" ", "␣").replace("\n", "↵\n").replace("\t", "⇥")


def _cut(words: str, length: int) -> str:
    return words if len(words) <= length else words[:length] + "…"
