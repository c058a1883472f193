"""Layout of KLUE-NER: a TSV with one named-entity tag per character."""

from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import read_lines
from kebyt5_xm.errors import UserError

ENTITY_SEPARATOR = ";"
"""Separates two entities in the target text, followed by a space."""


class KlueNer(Layout):
    """One row per sentence: `id`, `sentence`, and `entities` as text.

    Published files (`klue-ner-v1.1_train.tsv`, `klue-ner-v1.1_dev.tsv`): a line `## ID<tab>SENTENCE` with entities in
    angle brackets, then a line `CHARACTER<tab>TAG` for each character (spaces included) with the tags O, B-TYPE and
    I-TYPE, then an empty line. The sentence is rebuilt from the characters. If a file starts with several `##` lines,
    the last one begins the first sentence; the lines above it are comments.

    `entities` lists the entities in order as `TEXT=TYPE`, separated by "; ": `강릉=LC; 5㎞=QT`.
    `kebyt5_xm.metrics.EntityF1` reads this form. If an entity contains a semicolon, `entities` is null and the row is
    skipped, because the entity would read as two.

    Args:
        none: the text of `entities` for a sentence without entities.
    """

    def __init__(self, none: str = "없음") -> None:
        self.none = none

    def read(self, path: Path) -> Iterator[Row]:
        row: Row | None = None
        characters: list[tuple[str, str]] = []
        has_characters = False
        for number, text in read_lines(path):
            if text.startswith("##"):
                if not has_characters:
                    row = None  # a comment above the first sentence
                yield from self._make_row(row, characters)
                row, characters = {"id": text[2:].split("\t")[0].strip(), LINE: number}, []
            elif text.strip():
                character, tab, tag = text.partition("\t")
                if row is None or not tab:
                    raise UserError(
                        f"line {number} of {path} is {text[:60]!r}, expected '## ID<tab>SENTENCE' and then lines "
                        "'CHARACTER<tab>TAG'; give a file of KLUE-NER, or correct `format`"
                    )
                has_characters = True
                characters.append((character, _check_tag(tag.strip(), number, path)))
        yield from self._make_row(row, characters)

    def _make_row(self, row: Row | None, characters: list[tuple[str, str]]) -> Iterator[Row]:
        if row is not None:
            found = find_entities(characters)
            is_unambiguous = all(ENTITY_SEPARATOR not in text for text, _ in found)
            listed = f"{ENTITY_SEPARATOR} ".join(f"{text}={kind}" for text, kind in found) or self.none
            sentence = "".join(character for character, _ in characters)
            yield {
                **row,
                "sentence": sentence or None,
                "entities": listed if is_unambiguous and sentence else None,
            }


def _check_tag(tag: str, number: int, path: Path) -> str:
    if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
        raise UserError(
            f"line {number} of {path} has the tag {tag[:40]!r}, expected O, B-TYPE or I-TYPE; correct the line"
        )
    return tag


def find_entities(characters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (text, type) of each entity in (character, tag) pairs. An I tag without a B also begins an entity."""
    found: list[tuple[str, str]] = []
    open_kind = None
    for character, tag in characters:
        kind = tag[2:] or None
        if kind is not None and kind == open_kind and tag.startswith("I-"):
            found[-1] = (found[-1][0] + character, kind)
        elif kind is not None:
            found.append((character, kind))
        open_kind = kind
    return found
