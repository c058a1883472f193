"""Where an output's bytes and a reference's differ, shown in whole characters wherever the bytes make some."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from rapidfuzz.distance import Levenshtein

MOST_CHARACTERS = 400
"""Of a text, as it is shown and aligned."""


_NO_UTF8 = re.compile("[\ufffd\ud800-\udfff]")


@dataclass(frozen=True)
class Character:
    """A character, or one byte that is part of none.

    Attributes:
        text: the character; empty for a byte that is part of none.
        raw: its bytes.
        differs: which of them are not on the other side.
    """

    text: str
    raw: bytes
    differs: tuple[bool, ...]

    @property
    def kind(self) -> Literal["same", "part", "other", "byte"]:
        """How it is to be marked: `part` of its bytes differ, or all; `byte` is no character."""
        if not self.text:
            return "byte"
        return "other" if all(self.differs) else "part" if any(self.differs) else "same"


@dataclass(frozen=True)
class Piece:
    """Characters side by side that are marked alike."""

    kind: Literal["same", "part", "other", "byte"]
    characters: tuple[Character, ...]

    @property
    def text(self) -> str:
        return "".join(c.text for c in self.characters)


def as_bytes(text: str) -> bytes:
    """Return UTF-8; U+DC80 to U+DCFF are the bytes that Python's `surrogateescape` hides there."""
    replaced = "".join(
        c if not 0xD800 <= ord(c) < 0xE000 or 0xDC80 <= ord(c) < 0xDD00 else "\ufffd" for c in text
    )
    return replaced.encode("utf-8", "surrogateescape")


def is_malformed(text: str) -> bool:
    """Say whether a model's output was not UTF-8: it holds lone surrogates, or U+FFFD in place of bytes."""
    return _NO_UTF8.search(text) is not None


def nearest(references: Sequence[str], prediction: str) -> int:
    """Return the number of the reference of which the fewest bytes differ; 0 for no reference."""
    raw = as_bytes(prediction[:MOST_CHARACTERS])
    distances = [Levenshtein.distance(as_bytes(r[:MOST_CHARACTERS]), raw) for r in references]
    return distances.index(min(distances)) if distances else 0


def differences(reference: str, prediction: str) -> tuple[list[Piece], list[Piece], int]:
    """Return the pieces of the reference and of the output, cut at `MOST_CHARACTERS`, and the bytes to edit."""
    sides = [as_bytes(text[:MOST_CHARACTERS]) for text in (reference, prediction)]
    differs = [[True] * len(raw) for raw in sides]
    for run in Levenshtein.opcodes(*sides):
        if run.tag == "equal":
            length = run.src_end - run.src_start
            differs[0][run.src_start : run.src_end] = [False] * length
            differs[1][run.dest_start : run.dest_end] = [False] * length
    left, right = (pieces(raw, marks) for raw, marks in zip(sides, differs, strict=True))
    return left, right, Levenshtein.distance(*sides)


def pieces(raw: bytes, differs: Sequence[bool]) -> list[Piece]:
    """Return bytes as pieces; `differs` says it of each byte."""
    characters = []
    position = 0
    for character in raw.decode("utf-8", "surrogateescape"):
        own = character.encode("utf-8", "surrogateescape")
        marks = tuple(differs[position : position + len(own)])
        whole = not 0xD800 <= ord(character) < 0xE000
        characters.append(Character(character if whole else "", own, marks))
        position += len(own)
    return [Piece(kind, tuple(run)) for kind, run in groupby(characters, key=lambda c: c.kind)]
