"""The manifest source: rows of a table as examples, by a prompt and a target."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.media.bad_sample import BadSample, MediaError, Skip
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.names import expand_home
from kebyt5_xm.data.media.reference import FileSpan, Limits, Readable
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.sources.example_maker import ExampleMaker
from kebyt5_xm.data.sources.feeding import check_texts
from kebyt5_xm.data.sources.lengths import LengthTable, find_table, make_table, mended, table_key
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.source import Part, Selection, Source
from kebyt5_xm.data.sources.template import Slot, Template
from kebyt5_xm.data.sources.words import Words
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import Metric, check_metrics

ROWS_CHECKED = 1000
"""First rows that labels are held against before anything is trained; `lint` looks at all."""

T = TypeVar("T")


class Manifest(Source):
    """Examples from a manifest: JSON, also compressed, parquet, Arrow, ORC, WebDataset tar shards or a saved dataset.

    Args:
        path: the manifest: JSON lines, parquet, a WebDataset tar shard, or several as `train-{000..127}.tar` or
            `train-*.tar`; media in it are paths relative to its folder, or files in the shard.
        format: how the files are laid out where they are none of these: a class of `kebyt5_xm.data.layouts`.
        prompt: the input, with `{column}` for text, `{column:modality}` for the slots of an image or a recording,
            and `{column:.1f}` for a number with one decimal; `{{` is a brace. Nothing else is special.
        target: the text to be written, with `{column}` alike.
        labels: the only targets that there are, as a list; or what stands in the target as published, and the word
            to write for it. Written answers are then always one of them.
        references: a column whose text, or list of texts, is right where answers are judged; the target unless
            given.
        metrics: by which written answers to the held-out rows are judged.
        weight: share of this source's examples in the mixture, relative to the other sources.
        epochs: after so many passes over the rows the source gives no more and the others fill its place; null
            repeats it for ever.
        validation: a held-out manifest with the same columns.
        validation_format: its layout; `format` unless given.
        max_validation_examples: rows of it that are used.
        count_left_out: held-out rows of which no example can be made, since they are too long or a file is missing,
            count as wrong answers, so that a published figure is over all of them; else metrics are over the others.
        max_source_length: longest input in bytes, slots not counted; a longer example is left out with a warning.
        max_target_length: longest target in bytes, likewise.
        limits: largest media that are opened.
        allow_remote: media may be URLs of the public internet, also in archives and caches (see docs/data.md).
        allow_outside: media may lie outside the manifest's folder; with allow_remote, any URL that fsspec opens.
    """

    def __init__(
        self,
        path: str,
        prompt: str,
        target: str,
        format: Layout | None = None,
        labels: list[str] | dict[str, str] | None = None,
        references: str | None = None,
        metrics: list[Metric] | None = None,
        weight: float = 1.0,
        epochs: int | None = None,
        validation: str | None = None,
        validation_format: Layout | None = None,
        max_validation_examples: int = 1000,
        count_left_out: bool = False,
        max_source_length: int = 1024,
        max_target_length: int = 1024,
        limits: Limits | None = None,
        allow_remote: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.weight = weight
        self.epochs = epochs
        self.prompt, self.target = Template(prompt), Template(target)
        if self.target.modalities:
            raise UserError(f"the target {target!r} has a slot; only a prompt can, so take the colon out")
        self.rows = open_rows(expand_home(path), format)
        self.held_out = (
            open_rows(expand_home(validation), validation_format or format) if validation else None
        )
        words = Words.of(labels)
        self.labels = words.labels if words else None
        self.metrics = metrics or []
        self.references_column = references
        self.count_left_out = count_left_out
        self.max_validation_examples = max_validation_examples
        self.limits = limits or Limits()
        self.maker = ExampleMaker(
            self.prompt,
            self.target,
            words,
            max_source_length,
            max_target_length,
            self.limits,
            allow_remote,
            allow_outside,
        )
        for rows in self._tables():
            known = self.prompt.modalities
            self.prompt.check(rows.columns, known)
            self.target.check(rows.columns, ())
        self._check_answers()

    def _check_answers(self) -> None:
        """Raise `UserError` if the rows that answers would be judged by do not fit labels or metrics."""
        if self.metrics and self.held_out is None:
            raise UserError("found metrics but no held-out rows to judge; give a manifest as `validation`")
        if self.references_column is not None:
            for rows in self._tables()[1:]:
                Template(f"{{{self.references_column}}}").check(rows.columns, ())
        if self.maker.words is not None:
            texts = replace(self.maker, words=None)
            self.maker.words.check(_made(texts.target_text, self.rows))
        if self.metrics and self.held_out is not None:
            found = _made(lambda _, row: self.references(row), self.held_out, self.max_validation_examples)
            try:
                check_metrics(self.metrics, found, self.labels)
            except UserError as error:
                raise UserError(f"{self.held_out.path}: {error}") from error

    def references(self, row: int) -> tuple[str, ...]:
        rows = self.held_out
        assert rows is not None
        if self.references_column is None:
            return (self.maker.target_text(rows, row),)
        value = rows.row(row).get(self.references_column)
        texts = value if isinstance(value, list) else [value]
        missing = (text is None or (isinstance(text, float) and not math.isfinite(text)) for text in texts)
        found = tuple(str(text) for text, absent in zip(texts, missing, strict=True) if not absent)
        if not found:
            raise rows.error(row, f"column '{self.references_column}' has no reference")
        return tuple(self.maker.word(text, rows, row) for text in found) if self.maker.words else found

    def _tables(self) -> list[Rows]:
        return [self.rows, *([self.held_out] if self.held_out is not None else [])]

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        self.prompt.check(self.rows.columns, interfaces)
        for template in (self.prompt, self.target):
            check_texts(template, self.rows, interfaces, self.modalities)
        self.maker.interfaces = {name: interfaces[name] for name in self.prompt.modalities}
        self._opened.clear()  # they decide lengths

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.prompt.modalities

    def parts(self) -> list[Part]:
        return [Part("", len(self.rows), 1.0, self.rows.fingerprint, self.epochs)]

    def validation_parts(self) -> list[Part]:
        if self.held_out is None:
            return []
        num_rows = min(len(self.held_out), self.max_validation_examples)
        return [Part("", num_rows, 1.0, self.held_out.fingerprint)]

    def load(self, selection: Selection) -> list[Example]:
        rows = self._tables()[selection.held_out]
        promised = self.lengths(selection)
        return [
            self._example(rows, int(number), tuple(lengths))
            for number, lengths in zip(selection.row, promised.tolist(), strict=True)
        ]

    def _example(self, rows: Rows, number: int, promised: tuple[int, ...]) -> Example:
        try:
            example = self.example(rows, number)
            found = len(example.input_ids), len(example.target_ids)
            if found != promised:
                raise rows.error(number, self._changed(rows, found, promised))
        except BadSample as error:
            return self.skipped(rows, number, error)
        return example

    def _changed(self, rows: Rows, found: tuple[int, int], promised: tuple[int, ...]) -> str:
        if not any(promised):
            return "a file has come since the length table was made; the row counts from the next start on"
        table = self._table(rows is self.held_out).path.name
        return (
            f"{found[0]} positions and {found[1]} target ids, but {promised[0]} and {promised[1]} when the length "
            f"table was made: a file has changed since; delete {table} to make it anew"
        )

    def skipped(self, rows: Rows, number: int, error: BadSample) -> Example:
        """Return the empty place of a row of which no example can be made."""
        path, line = rows.place(number)
        return Example.empty(Skip(line, error.path if isinstance(error, MediaError) else path, error.cause))

    def example(self, rows: Rows, number: int) -> Example:
        """Return the example of one row; raises `BadSample` with the cause if it cannot be made."""
        return self.maker.example(rows, number)

    def readable(self, reference: str | bytes | FileSpan, rows: Rows) -> Readable:
        """Return what may be opened for a reference in a row; raise `MediaError` for what may not."""
        return self.maker.readable(reference, rows)

    def media_references(self, modality: str) -> Iterator[tuple[Rows, str | bytes | FileSpan]]:
        """Yield every reference to a medium of `modality`, training and held-out, with the table that holds it."""
        if modality not in self.prompt.modalities:
            return
        for rows in self._tables():
            for number in range(len(rows)):
                try:
                    segments = self.prompt.render(rows.row(number))
                except BadSample:
                    continue
                for segment in segments:
                    if isinstance(segment, Slot) and segment.modality == modality:
                        yield rows, segment.reference

    def impossible(self, longest: int | None = None) -> tuple[int, int]:
        table = self._table(False)
        too_long = 0 if longest is None else int((table.lengths.max(axis=1) > longest).sum())
        return table.num_bad + too_long, len(self.rows)

    def place(self, row: int) -> tuple[str, int]:
        return self.rows.place(row)

    # -- lengths -----------------------------------------------------------------------------------

    def prepare(self, workers: int, progress: Progress) -> None:
        for number, rows in enumerate(self._tables()):
            held_out = bool(number)
            key, measure = self._key(held_out), partial(self._measure, held_out)
            table = find_table(rows.path, key, len(rows))
            if table is None:
                table = make_table(rows.path, key, rows.fingerprint, len(rows), measure, workers, progress)
            elif table.num_bad:
                table = mended(table, rows.path, key, rows.fingerprint, measure, workers, progress)
            self._opened[held_out] = table

    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        return self._table(selection.held_out).lengths[selection.row].astype(np.int64)

    @cached_property
    def _opened(self) -> dict[bool, LengthTable]:
        return {}

    def _key(self, held_out: bool) -> str:
        return table_key({"manifest": self._tables()[held_out].fingerprint, **self._deciding()})

    def _table(self, held_out: bool) -> LengthTable:
        if held_out not in self._opened:
            rows, key = self._tables()[held_out], self._key(held_out)
            measure = partial(self._measure, held_out)
            self._opened[held_out] = find_table(rows.path, key, len(rows)) or make_table(
                rows.path, key, rows.fingerprint, len(rows), measure, 1, lambda _: None
            )
        return self._opened[held_out]

    def _measure(self, held_out: bool, number: int) -> tuple[int, int] | str:
        return self.maker.measure(self._tables()[held_out], number)

    def _deciding(self) -> dict[str, object]:
        return {
            **self.settings_without_table(),
            "limits": repr(self.limits),
            "allow": [self.maker.allow_remote, self.maker.allow_outside],
        }

    def settings(self) -> dict[str, object]:
        return {**self.settings_without_table(), "lengths": self._table(False).digest}

    def settings_without_table(self) -> dict[str, object]:
        return {
            "prompt": self.prompt.text,
            "target": self.target.text,
            **({"labels": self.maker.words.given} if self.maker.words else {}),
            "max_source_length": self.maker.max_source_length,
            "max_target_length": self.maker.max_target_length,
            **{
                f"{name}.preprocessing": interface.fingerprint()
                for name, interface in self.maker.interfaces.items()
            },
        }


def _made(make: Callable[[Rows, int], T], rows: Rows, most: int = ROWS_CHECKED) -> list[T]:
    """Return what the first rows, `most` of them, give, without those of which it cannot be made."""
    made = []
    for number in range(min(most, len(rows))):
        with suppress(BadSample):
            made.append(make(rows, number))
    return made
