"""Where the bytes of an output and of a reference differ, by whole characters where the bytes form any."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rapidfuzz.distance import Levenshtein

MAX_CHARACTERS = 400
"""Characters of a text that are shown and aligned."""


_NO_UTF8 = re.compile("[\ufffd\ud800-\udfff]")


@dataclass(frozen=True)
class Character:
    """A character, or one byte that belongs to no character.

    Attributes:
        text: the character; empty for a single byte.
        raw: its bytes.
        differs: for each byte, whether the other text lacks it.
    """

    text: str
    raw: bytes
    differs: tuple[bool, ...]

    @property
    def kind(self) -> Literal["same", "part", "other", "byte"]:
        """The mark: `part` if some bytes differ, `other` if all do, `byte` for a single byte."""
        if not self.text:
            return "byte"
        return "other" if all(self.differs) else "part" if any(self.differs) else "same"


@dataclass(frozen=True)
class Piece:
    """Adjacent characters with the same mark."""

    kind: Literal["same", "part", "other", "byte"]
    characters: tuple[Character, ...]

    @property
    def text(self) -> str:
        return "".join(c.text for c in self.characters)


def as_bytes(text: str) -> bytes:
    """Return UTF-8. U+DC80 to U+DCFF become the bytes that Python's `surrogateescape` encoded there."""
    replaced = "".join(
        c if not 0xD800 <= ord(c) < 0xE000 or 0xDC80 <= ord(c) < 0xDD00 else "\ufffd" for c in text
    )
    return replaced.encode("utf-8", "surrogateescape")


def is_malformed(text: str) -> bool:
    """Return whether a model's output was not UTF-8: it has lone surrogates, or U+FFFD instead of bytes."""
    return _NO_UTF8.search(text) is not None


def find_nearest(references: Sequence[str], prediction: str) -> int:
    """Return the index of the reference with the fewest differing bytes; 0 if there is none."""
    raw = as_bytes(prediction[:MAX_CHARACTERS])
    distances = [Levenshtein.distance(as_bytes(r[:MAX_CHARACTERS]), raw) for r in references]
    return distances.index(min(distances)) if distances else 0


def mark_differences(reference: str, prediction: str) -> tuple[list[Piece], list[Piece], int]:
    """Return the pieces of the reference and the output, cut at `MAX_CHARACTERS`, and the bytes to edit."""
    sides = [as_bytes(text[:MAX_CHARACTERS]) for text in (reference, prediction)]
    differs = [[True] * len(raw) for raw in sides]
    for run in Levenshtein.opcodes(*sides):
        if run.tag == "equal":
            length = run.src_end - run.src_start
            differs[0][run.src_start : run.src_end] = [False] * length
            differs[1][run.dest_start : run.dest_end] = [False] * length
    left, right = (group_pieces(raw, marks) for raw, marks in zip(sides, differs, strict=True))
    return left, right, Levenshtein.distance(*sides)


def group_pieces(raw: bytes, differs: Sequence[bool]) -> list[Piece]:
    """Return bytes as pieces; `differs` says of each byte whether it differs."""
    characters = []
    position = 0
    for character in raw.decode("utf-8", "surrogateescape"):
        encoded = character.encode("utf-8", "surrogateescape")
        marks = tuple(differs[position : position + len(encoded)])
        whole = not 0xD800 <= ord(character) < 0xE000
        characters.append(Character(character if whole else "", encoded, marks))
        position += len(encoded)
    return [Piece(kind, tuple(run)) for kind, run in groupby(characters, key=lambda c: c.kind)]
