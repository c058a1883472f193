"""A table with a prompt and a target: its rows as texts and media, and as examples."""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.augmentation.augmentation import Changes
from kebyt5_xm.data.inputs import END, Example, MediaItem
from kebyt5_xm.data.media.bad_sample import BadSample, MediaError, Skip
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.opening import open_media, read_header
from kebyt5_xm.data.media.reference import FileSpan, Limits, Readable, display_name, resolve
from kebyt5_xm.data.sources.excerpt_columns import ExcerptColumns, check_whole
from kebyt5_xm.data.sources.template import Change, MediaSegment, Reference, Segment, Template, as_bytes
from kebyt5_xm.data.sources.words import Words
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import PAD_ID, encode, encode_bytes

MediumChange = Callable[[int, str, Any], Any]
"""(number of the slot in its example, modality, decoded medium) -> the medium to prepare instead."""


@dataclass(frozen=True)
class MediaReference:
    """A row's reference to one medium."""

    prompts: "PromptTable"
    reference: Reference

    @property
    def identity(self) -> bytes:
        """A key that is equal for references to the same medium."""
        file, times = self.reference, b""
        if isinstance(file, Excerpt):
            file, times = file.source, f" {file.start!r} {file.seconds!r}".encode()
        if isinstance(file, bytes):
            return file + times
        return f"{self.prompts.rows.root} {file!r}".encode() + times

    @property
    def limits(self) -> Limits:
        """The largest medium that the source opens."""
        return self.prompts.limits

    def readable(self) -> Readable:
        """Return what may be opened; raise `MediaError` for a path or URL that is not allowed."""
        return self.prompts.readable(self.reference)


@dataclass
class PromptTable:
    """A table whose rows become examples by a prompt and a target. A row is a number from 0.

    Args:
        rows: the table.
        prompt, target: the input and the text to be written.
        words: the labels, if the targets are a closed list.
        references_column: the column of the texts that are right where answers are judged; None for the target.
        max_source_length, max_target_length: in bytes, slots not counted.
        limits: the largest media that are opened.
        excerpts: the columns of the times that rows take of their recordings; None for whole recordings.
        allow_remote, allow_outside: see `kebyt5_xm.data.Manifest`.
        interfaces: modality -> how its media are prepared; those of the prompt's modalities.
    """

    rows: Rows
    prompt: Template
    target: Template
    words: Words | None = None
    references_column: str | None = None
    max_source_length: int = 1024
    max_target_length: int = 1024
    limits: Limits = field(default_factory=Limits)
    excerpts: ExcerptColumns | None = None
    allow_remote: bool = False
    allow_outside: bool = False
    interfaces: Mapping[str, MediaInterface] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    # -- what a row holds --------------------------------------------------------------------------

    def place(self, row: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of a row."""
        return self.rows.place(row)

    def segments(self, row: int, change: Change | None = None) -> list[Segment]:
        """Return the prompt of a row: texts and slots in order, texts of columns changed. Raises `BadSample`."""
        values = self.rows.row(row)
        segments = self._rendered(self.prompt, row, values, change)
        try:
            check_whole(self.prompt, values, self.excerpts)
            if self.excerpts is None:
                return segments
            return self.excerpts.cut(self.prompt, segments, values, self._is_recording)
        except BadSample as error:
            raise self.rows.error(row, error.cause) from error

    def target_text(self, row: int) -> str:
        """Return the target of a row. Raises `BadSample`, also for a text that is not one of the labels."""
        text = "".join(str(segment) for segment in self._rendered(self.target, row, self.rows.row(row)))
        return text if self.words is None else self._word(text, row)

    def references(self, row: int) -> tuple[str, ...]:
        """Return the texts that are right answers to a row. Raises `BadSample` if there are none."""
        if self.references_column is None:
            return (self.target_text(row),)
        value = self.rows.row(row).get(self.references_column)
        texts = value if isinstance(value, list) else [value]
        found = tuple(str(text) for text in texts if not _is_missing(text))
        if not found:
            raise self.rows.error(row, f"column '{self.references_column}' has no reference")
        return tuple(self._word(text, row) for text in found) if self.words else found

    def readable(self, reference: Reference) -> Readable:
        """Return what may be opened for a reference in a row; raise `MediaError` for what may not."""
        if isinstance(reference, Excerpt):
            source = self.readable(reference.source)  # pyright: ignore[reportArgumentType]
            return replace(reference, source=source)
        if isinstance(reference, bytes | FileSpan):
            return reference
        return resolve(self.rows.root, reference, self.allow_remote, self.allow_outside)

    def media(self, modality: str) -> Iterator[MediaReference]:
        """Yield every reference to a medium of `modality`. Rows whose prompt cannot be filled in are skipped."""
        if modality not in self.prompt.modalities:
            return
        for row in range(len(self)):
            try:
                segments = self.segments(row)
            except BadSample:
                continue
            for segment in segments:
                if isinstance(segment, MediaSegment) and segment.modality == modality:
                    yield MediaReference(self, segment.reference)

    # -- examples ----------------------------------------------------------------------------------

    def example(self, row: int, changes: Changes | None = None) -> Example:
        """Return the example of a row, changed by `changes`. Raises `BadSample` if it cannot be made."""
        target_ids = self._target_ids(row)
        if changes is None:
            return replace(self.input(row, self.segments(row)), target_ids=target_ids)
        change = changes.medium if changes.augmentation.changes_media else None
        example = self.input(row, self.changed_segments(row, changes), change)
        media = tuple(
            replace(item, prepared=changes.prepared(slot, item.modality, item.prepared))
            for slot, item in enumerate(example.media)
        )
        return replace(example, media=media, target_ids=target_ids)

    def changed_segments(self, row: int, changes: Changes) -> list[Segment]:
        """Return the prompt of a row with the texts of its columns changed, or unchanged ones if it gets too long."""
        segments = self.segments(row, changes.text if changes.augmentation.changes_text else None)
        return segments if _num_bytes(segments) <= self.max_source_length else self.segments(row)

    def growth(self, row: int, changes: Changes) -> int:
        """Return by how many bytes `changes` makes the prompt of a row longer. Raises `BadSample`."""
        return _num_bytes(self.changed_segments(row, changes)) - _num_bytes(self.segments(row))

    def input(self, row: int, segments: Sequence[Segment], change: MediumChange | None = None) -> Example:
        """Return the example of these segments, without a target. Raises `BadSample` as `example` does.

        With `change`, media are opened and changed before they are prepared, and no feature cache is read.
        """
        self._check_text(row, segments)
        ids: list[NDArray[np.int16]] = []
        media: list[MediaItem] = []
        position = 0
        for segment in segments:
            if isinstance(segment, MediaSegment):
                prepared, count = self._open(segment, len(media), change)
                ids.append(np.full(count, PAD_ID, dtype=np.int16))
                media.append(MediaItem(segment.modality, prepared, position, count))
            else:
                ids.append(encode(segment) if isinstance(segment, str) else encode_bytes(segment))
            position += len(ids[-1])
        return Example.without_target(ids, media)

    def skipped(self, row: int, error: BadSample) -> Example:
        """Return the empty example for a row that gives none."""
        path, line = self.place(row)
        return Example.empty(Skip(line, error.path if isinstance(error, MediaError) else path, error.cause))

    def example_or_skip(self, row: int, changes: Changes | None = None) -> Example:
        """Return the example of a row, or an empty one with the cause."""
        try:
            return self.example(row, changes)
        except BadSample as error:
            return self.skipped(row, error)

    def measure(self, row: int) -> tuple[int, int] | str:
        """Return a row's encoder positions and target ids, from the headers of its media, or an error text."""
        try:
            num_targets = len(self._target_ids(row))
            segments = self.segments(row)
            positions = self._check_text(row, segments) + len(END)
            for segment in segments:
                if isinstance(segment, MediaSegment):
                    interface = self.interfaces[segment.modality]
                    found = read_header(self.readable(segment.reference), interface.media, self.limits)
                    positions += interface.num_slots(found)
        except BadSample as error:
            return error.cause
        except UserError as error:  # too short for one feature, say
            return str(error)
        return positions, num_targets

    # -- variants ----------------------------------------------------------------------------------

    def without_caches(self) -> "PromptTable":
        """Return a copy that opens and prepares every medium, and reads no feature cache."""
        return replace(self, interfaces={name: replace(i, cache=None) for name, i in self.interfaces.items()})

    def of_any_length(self) -> "PromptTable":
        """Return a copy without a limit on inputs: a perturbed text may be three times as long."""
        return replace(self, max_source_length=sys.maxsize)

    # -- private -----------------------------------------------------------------------------------

    def _rendered(
        self, template: Template, row: int, values: Mapping[str, Any], change: Change | None = None
    ) -> list[Segment]:
        try:
            return template.render(values, change)
        except BadSample as error:
            raise self.rows.error(row, error.cause) from error

    def _is_recording(self, modality: str) -> bool:
        interface = self.interfaces.get(modality)
        return interface is None or interface.media == "audio"  # before `connect` kinds are unknown

    def _word(self, text: str, row: int) -> str:
        assert self.words is not None
        try:
            return self.words.word(text)
        except BadSample as error:
            raise self.rows.error(row, error.cause) from error

    def _check_text(self, row: int, segments: Sequence[Segment]) -> int:
        """Return the bytes of text among `segments`; raise `RowError` if they are too many."""
        num_text = _num_bytes(segments)
        if num_text > self.max_source_length:
            cause = f"input of {num_text} bytes, limit {self.max_source_length}"
            raise self.rows.error(row, cause)
        return num_text

    def _open(self, segment: MediaSegment, number: int, change: MediumChange | None) -> tuple:
        interface = self.interfaces[segment.modality]
        readable = self.readable(segment.reference)
        try:
            if change is None:
                return interface.load(readable, self.limits)
            item = open_media(readable, interface.media, self.limits)
            return interface.prepare(change(number, segment.modality, item))
        except BadSample:
            raise
        except UserError as error:  # too short for one feature, say: this sample's fault
            raise MediaError(display_name(readable), str(error)) from error

    def _target_ids(self, row: int) -> NDArray[np.int16]:
        ids = encode(self.target_text(row))
        if len(ids) > self.max_target_length:
            cause = f"target of {len(ids)} bytes, limit {self.max_target_length}"
            raise self.rows.error(row, cause)
        return np.concatenate([ids, END])


def _num_bytes(segments: Sequence[Segment]) -> int:
    """Return the bytes of text among `segments`."""
    return sum(len(as_bytes(segment)) for segment in segments if not isinstance(segment, MediaSegment))


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
