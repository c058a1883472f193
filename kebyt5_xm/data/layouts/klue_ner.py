"""Named entities, marked character by character: the TSV of KLUE-NER."""

from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import numbered_lines
from kebyt5_xm.errors import UserError

ENTITY_SEPARATOR = ";"
"""Parts two entities of a target, with a space behind it."""


class KlueNer(Layout):
    """One row a sentence: `id`, `sentence`, and `entities` as text.

    As published (`klue-ner-v1.1_train.tsv`, `klue-ner-v1.1_dev.tsv`): a line `## ID<tab>SENTENCE` with entities in
    angle brackets, then a line `CHARACTER<tab>TAG` for each character, spaces too, with the tags O, B-TYPE and
    I-TYPE, then an empty line. The sentence is put together from the characters. Of several lines with `##` at the
    top of a file the last begins a sentence; those above it are remarks on the file.

    `entities` lists them in order as `TEXT=TYPE`, with "; " between two: `강릉=LC; 5㎞=QT`. It is what
    `kebyt5_xm.metrics.EntityF1` reads. It is null, so that the row is skipped, where an entity itself holds a
    semicolon and could not be told from two.

    Args:
        none: what stands there for a sentence without an entity.
    """

    def __init__(self, none: str = "없음") -> None:
        self.none = none

    def read(self, path: Path) -> Iterator[Row]:
        row: Row | None = None
        characters: list[tuple[str, str]] = []
        begun = False
        for number, text in numbered_lines(path):
            if text.startswith("##"):
                if not begun:
                    row = None  # a remark above the first sentence
                yield from self._make_row(row, characters)
                row, characters = {"id": text[2:].split("\t")[0].strip(), LINE: number}, []
            elif text.strip():
                character, tab, tag = text.partition("\t")
                if row is None or not tab:
                    raise UserError(
                        f"line {number} of {path} is {text[:60]!r}, expected '## ID<tab>SENTENCE' and then lines "
                        "'CHARACTER<tab>TAG'; is it another file?"
                    )
                begun = True
                characters.append((character, _check_tag(tag.strip(), number, path)))
        yield from self._make_row(row, characters)

    def _make_row(self, row: Row | None, characters: list[tuple[str, str]]) -> Iterator[Row]:
        if row is not None:
            found = find_entities(characters)
            told = all(ENTITY_SEPARATOR not in text for text, _ in found)
            listed = f"{ENTITY_SEPARATOR} ".join(f"{text}={kind}" for text, kind in found) or self.none
            sentence = "".join(character for character, _ in characters)
            yield {**row, "sentence": sentence or None, "entities": listed if told and sentence else None}


def _check_tag(tag: str, number: int, path: Path) -> str:
    if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
        raise UserError(f"line {number} of {path} has the tag {tag[:40]!r}, expected O, B-TYPE or I-TYPE")
    return tag


def find_entities(characters: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (text, type) of the entities among characters with their tags; I without a B begins one too."""
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
