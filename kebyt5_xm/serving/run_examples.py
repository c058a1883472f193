"""Prompts and held-out examples of a run, for the page."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.reference import RemoteUrl, open_readable
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.sources.source import Selection, Source
from kebyt5_xm.data.sources.template import MediaSegment, Template
from kebyt5_xm.encoder import Media
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.specs import build
from kebyt5_xm.serving.page_content import (
    Example,
    FieldPart,
    GapExample,
    MediumPart,
    PageContent,
    Prompt,
    PromptPart,
    TextPart,
)
from kebyt5_xm.trust import without_working_folder

EXAMPLES_PER_PROMPT = 8
MAX_FILE_BYTES = 1_000_000
"""Larger media are no examples, which are all held in memory. Our own choice."""
ROWS_READ = 400
"""Held-out rows in which the values of a field are looked for."""
MAX_VALUES = 20
"""A field with more values than this is free text."""
LINE_BYTES = range(24, 200)
MAX_CHARACTERS = 60
"""Of a part of a longer line."""
GAP_BYTES = 12
"""Of a gap in a text without spaces: four Korean, Chinese or Japanese characters."""


def collect_content(
    run: Run, interfaces: Mapping[str, MediaInterface], trusted_modules: Sequence[str] = ()
) -> PageContent:
    """Return the prompts of a run's recipe, and examples from the held-out rows that are here.

    Sources whose files are gone, or whose package is not trusted, keep their prompt and have no examples.
    """
    content = PageContent()
    modalities: dict[str, Media] = {name: interface.media for name, interface in interfaces.items()}
    for name, block in ((run.config.get("data") or {}).get("sources") or {}).items():
        init_args = block.get("init_args") or {} if isinstance(block, dict) else {}
        source = _open(block, trusted_modules)
        template = Template.if_valid(init_args.get("prompt"))
        if template is not None and set(template.modalities) <= modalities.keys():
            _add_prompt(content, name, template, init_args.get("labels"), source, modalities)
        elif source is not None:
            with suppress(UserError, OSError):
                content.gaps += _gap_examples(source, init_args)
    return content


def _open(block: Any, trusted_modules: Sequence[str]) -> Source | None:
    try:
        with without_working_folder(trusted_modules):
            return build(block, Source, trusted_modules, where="data.sources")
    except (UserError, OSError):
        return None


def _add_prompt(
    content: PageContent,
    name: str,
    template: Template,
    labels: Any,
    source: Source | None,
    modalities: Mapping[str, Media],
) -> None:
    table = source.prompts(held_out=True) if source is not None else None
    values: dict[str, dict[str, None]] = {column: {} for column in template.text_columns}
    if table is not None:
        for row in _spread(len(table), ROWS_READ):
            with suppress(BadSample, UserError, OSError):
                for column, text in _fields(table, row)[0].items():
                    values.setdefault(column, {})[text] = None
        for example in islice(_examples(content, table), EXAMPLES_PER_PROMPT):
            content.examples.append(example)
    parts: list[PromptPart] = []
    for piece in template.pieces():
        if isinstance(piece, str):
            last = parts[-1] if parts else None
            if isinstance(last, TextPart):  # an escaped brace is a piece of its own
                last.text += piece
            else:
                parts.append(TextPart(text=piece))
            continue
        column, modality = piece
        seen = list(values.get(column, ()))
        if modality is not None:
            parts.append(MediumPart(type=modalities[modality], modality=modality))
        else:
            parts.append(FieldPart(name=column, values=seen if len(seen) <= MAX_VALUES else []))
    words = list(labels.values()) if isinstance(labels, dict) else labels
    words = None if words is None else [str(word) for word in words]
    content.prompts.append(Prompt(name=name, parts=parts, labels=words))


def _fields(table: PromptTable, row: int) -> tuple[dict[str, str], list[MediaSegment]]:
    """Return the texts of a row's columns, by column, and its media."""
    fields: dict[str, str] = {}

    def note(column: str, text: str) -> str:
        fields[column] = text
        return text

    segments = table.segments(row, note)
    return fields, [segment for segment in segments if isinstance(segment, MediaSegment)]


def _examples(content: PageContent, table: PromptTable) -> Iterator[Example]:
    """Yield examples of the prompt that is added next, from rows all over the table; their files are kept.

    Rows with a large or remote file are passed over, and those with several media in one place.
    """
    rows = _spread(len(table), 4 * EXAMPLES_PER_PROMPT)
    places = sum(isinstance(piece, tuple) and piece[1] is not None for piece in table.prompt.pieces())
    for row in (row for start in range(4) for row in rows[start::4]):
        with suppress(BadSample, UserError, OSError):
            fields, media = _fields(table, row)
            target = table.target_text(row)
            files = [raw for medium in media if (raw := _read(table, medium)) is not None]
            if len(files) == len(media) == places:
                numbers = list(range(len(content.files), len(content.files) + len(files)))
                content.files += files
                yield Example(prompt=len(content.prompts), fields=fields, files=numbers, target=target)


def _read(table: PromptTable, medium: MediaSegment) -> bytes | None:
    readable = table.readable(medium.reference)
    if isinstance(readable, RemoteUrl):
        return None
    with open_readable(readable) as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    return raw if 0 < len(raw) <= MAX_FILE_BYTES else None


def _spread(length: int, count: int) -> list[int]:
    """Return at most `count` rows, evenly spread."""
    return sorted({int(row) for row in np.linspace(0, length - 1, min(length, count))}) if length else []


def _gap_examples(source: Source, init_args: Mapping[str, Any]) -> Iterator[GapExample]:
    """Yield a held-out text with a gap for each part of a source that trains by span denoising."""
    denoising = type(source).denoising(init_args)
    if denoising is None:
        return
    for number, part in enumerate(source.validation_parts()):
        for row in _spread(part.num_rows, EXAMPLES_PER_PROMPT):
            (example,) = source.load(Selection.rows(number, row, row + 1, held_out=True))
            chunk = denoising.restore(example.input_ids, example.target_ids).decode("utf-8", "ignore")
            if found := _find_line(chunk):
                yield _cut(found)
                break


def _find_line(chunk: str) -> str | None:
    """Return a line of a chunk, or else a part of the longest one; the first and the last may be cut."""
    lines = chunk.split("\n")
    longest = max(lines, key=len)[:MAX_CHARACTERS]
    for line in (*lines[1:-1], " ".join(longest.split(" ")[1:-1])):
        if len(line.encode()) in LINE_BYTES:
            return line.strip()
    return None


def _cut(line: str) -> GapExample:
    """Remove a word from the middle of a line, or some characters of a line without spaces."""
    words = line.split(" ")
    if len(words) > 2:
        middle = len(words) // 2
        before, after = " ".join(words[:middle]) + " ", " " + " ".join(words[middle + 1 :])
        return GapExample(pieces=[before, after], spans=[words[middle]])
    raw = line.encode()
    before = raw[: (len(raw) - GAP_BYTES) // 2].decode("utf-8", "ignore")
    span = raw[len(before.encode()) :][:GAP_BYTES].decode("utf-8", "ignore")
    return GapExample(pieces=[before, line[len(before) + len(span) :]], spans=[span])
