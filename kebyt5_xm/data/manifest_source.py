"""The manifest source: rows of a table as examples, by a prompt and a target."""

from collections.abc import Iterator
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.cache.store import CacheMiss
from kebyt5_xm.data.bad_sample import BadSample, MediaError, RowError, Skip
from kebyt5_xm.data.lengths import LengthTable, find_table, make_table, table_key
from kebyt5_xm.data.manifest import open_rows
from kebyt5_xm.data.media import header
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.reference import Limits, Readable, Span, resolve
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.data.source import Example, MediaItem, Part, Selection, Source
from kebyt5_xm.data.template import Slot, Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.modality import MediaInterface
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

_EOS = np.asarray([EOS_ID], dtype=np.int16)


class Manifest(Source):
    """Examples from a manifest: JSON lines, also .gz and .zst, parquet, or WebDataset tar shards.

    Args:
        path: the manifest: JSON lines, parquet, a WebDataset tar shard, or several as `train-{000..127}.tar` or
            `train-*.tar`; media in it are paths relative to its folder, or files in the shard.
        prompt: the input, with `{column}` for text and `{column:modality}` for the slots of an image or a
            recording; `{{` is a brace. Nothing else is special.
        target: the text to be written, with `{column}` alike.
        weight: share of this source's examples in the mixture, relative to the other sources.
        epochs: after so many passes over the rows the source gives no more and the others fill its place; null
            repeats it for ever.
        validation: a held-out manifest with the same columns.
        max_validation_examples: rows of it that are used.
        max_source_length: longest input in bytes, slots not counted; a longer example is left out with a warning.
        max_target_length: longest target in bytes, likewise.
        limits: largest media that are opened.
        allow_remote: media may be URLs (any that fsspec opens).
        allow_outside: media may lie outside the manifest's folder.
    """

    def __init__(
        self,
        path: str,
        prompt: str,
        target: str,
        weight: float = 1.0,
        epochs: int | None = None,
        validation: str | None = None,
        max_validation_examples: int = 1000,
        max_source_length: int = 1024,
        max_target_length: int = 1024,
        limits: Limits | None = None,
        allow_remote: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.weight = weight
        self.epochs = epochs
        self.prompt = Template(prompt)
        self.target = Template(target)
        if self.target.modalities:
            raise UserError(f"the target {target!r} has a slot; only a prompt can, so take the colon out")
        self.rows = open_rows(path)
        self.held_out = open_rows(validation) if validation else None
        self.max_validation_examples = max_validation_examples
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self.limits = limits or Limits()
        self.allow_remote = allow_remote
        self.allow_outside = allow_outside
        self.interfaces: dict[str, MediaInterface] = {}
        for rows in self._tables():
            known = self.prompt.modalities
            self.prompt.check(rows.columns, known)
            self.target.check(rows.columns, ())

    def _tables(self) -> list[Rows]:
        return [self.rows, *([self.held_out] if self.held_out is not None else [])]

    def connect(self, interfaces: dict[str, MediaInterface]) -> None:
        self.prompt.check(self.rows.columns, interfaces)
        self.interfaces = {name: interfaces[name] for name in self.prompt.modalities}

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
                raise RowError(
                    *rows.place(number),
                    f"{found[0]} positions and {found[1]} target ids, but {promised[0]} and {promised[1]} when the "
                    "length table was made: a file has changed since; delete the table to make it anew",
                )
        except BadSample as error:
            return self.skipped(rows, number, error)
        return example

    def skipped(self, rows: Rows, number: int, error: BadSample) -> Example:
        """Return the empty place of a row of which no example can be made."""
        path, line = rows.place(number)
        return Example.empty(Skip(line, error.path if isinstance(error, MediaError) else path, error.cause))

    def example(self, rows: Rows, number: int) -> Example:
        """Return the example of one row; raises `BadSample` with the cause if it cannot be made."""
        row = rows.row(number)
        target_ids = self._target_ids(row, rows, number)
        segments = self._rendered(self.prompt, row, rows, number)
        self._check_text(segments, rows, number)
        ids: list[NDArray[np.int16]] = []
        media: list[MediaItem] = []
        position = 0
        for segment in segments:
            if isinstance(segment, Slot):
                prepared, count = self._open(segment, rows)
                ids.append(np.full(count, PAD_ID, dtype=np.int16))
                media.append(MediaItem(segment.modality, prepared, position, count))
            else:
                ids.append(encode(segment))
            position += len(ids[-1])
        return Example(np.concatenate([*ids, _EOS]), target_ids, tuple(media))

    def _check_text(self, segments: list, rows: Rows, number: int) -> int:
        """Return the bytes of text among `segments`; raise `RowError` if they are too many."""
        num_text = sum(len(s.encode()) for s in segments if isinstance(s, str))
        if num_text > self.max_source_length:
            cause = f"input of {num_text} bytes, limit {self.max_source_length}"
            raise RowError(*rows.place(number), cause)
        return num_text

    def _open(self, slot: Slot, rows: Rows) -> tuple:
        interface = self.interfaces[slot.modality]
        try:
            return interface.load(self.readable(slot.reference, rows), self.limits)
        except (BadSample, CacheMiss):
            raise
        except UserError as error:  # too short for one feature, say: this sample's fault
            raise MediaError(str(slot.reference)[:200], str(error)) from error

    def readable(self, reference: str | bytes | Span, rows: Rows) -> Readable:
        """Return what may be opened for a reference in a row; raise `MediaError` for what may not."""
        if isinstance(reference, bytes | Span):
            return reference
        return resolve(rows.path.parent, reference, self.allow_remote, self.allow_outside)

    def references(self, modality: str) -> Iterator[tuple[Rows, str | bytes | Span]]:
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

    def _rendered(self, template: Template, row: dict, rows: Rows, number: int) -> list:
        try:
            return template.render(row)
        except BadSample as error:
            raise RowError(*rows.place(number), error.cause) from error

    def _target_ids(self, row: dict, rows: Rows, number: int) -> NDArray[np.int16]:
        text = "".join(self._rendered(self.target, row, rows, number))
        ids = encode(text)
        if len(ids) > self.max_target_length:
            raise RowError(
                *rows.place(number),
                f"target of {len(ids)} bytes, limit {self.max_target_length}",
            )
        return np.concatenate([ids, _EOS])

    def impossible(self) -> tuple[int, int]:
        return self._table(False).num_bad, len(self.rows)

    def place(self, row: int) -> tuple[str, int]:
        return self.rows.place(row)

    # -- lengths -----------------------------------------------------------------------------------

    def prepare(self, workers: int, progress: Progress) -> None:
        for held_out in range(len(self._tables())):
            self._table(held_out, workers, progress)

    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        if selection.held_out not in self._opened:
            self._opened[selection.held_out] = self._table(selection.held_out).lengths
        return self._opened[selection.held_out][selection.row].astype(np.int64)

    @cached_property
    def _opened(self) -> dict[bool, NDArray[np.int32]]:
        return {}

    def _table(
        self, held_out: bool | int, workers: int = 1, progress: Progress = lambda _: None
    ) -> LengthTable:
        rows = self._tables()[held_out]
        settings = {"manifest": rows.fingerprint, **self._deciding()}
        key = table_key(settings)
        measure = partial(self._measure, bool(held_out))
        return find_table(rows.path, key, len(rows)) or make_table(
            rows.path, key, len(rows), measure, workers, progress
        )

    def _measure(self, held_out: bool, number: int) -> tuple[int, int] | str:
        """Return encoder positions and target ids of a row from its media's headers, or why there are none."""
        rows = self._tables()[held_out]
        try:
            row = rows.row(number)
            num_targets = len(self._target_ids(row, rows, number))
            segments = self._rendered(self.prompt, row, rows, number)
            positions = self._check_text(segments, rows, number) + len(_EOS)
            for segment in segments:
                if isinstance(segment, Slot):
                    interface = self.interfaces[segment.modality]
                    found = header(self.readable(segment.reference, rows), interface.media, self.limits)
                    positions += interface.num_slots(found)
        except BadSample as error:
            return error.cause
        except UserError as error:  # too short for one feature, say
            return str(error)
        return positions, num_targets

    def _deciding(self) -> dict[str, object]:
        return {
            **self.settings_without_table(),
            "limits": repr(self.limits),
            "allow": [self.allow_remote, self.allow_outside],
        }

    def settings(self) -> dict[str, object]:
        return {**self.settings_without_table(), "lengths": self._table(False).digest}

    def settings_without_table(self) -> dict[str, object]:
        return {
            "prompt": self.prompt.text,
            "target": self.target.text,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
            **{
                f"{name}.preprocessing": interface.fingerprint()
                for name, interface in self.interfaces.items()
            },
        }
