"""From a row of a table to an example: prompt and target rendered, media opened, ids laid end to end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.inputs import END, Example, MediaItem
from kebyt5_xm.data.media.bad_sample import BadSample, MediaError
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.opening import open_media, read_header
from kebyt5_xm.data.media.reference import FileSpan, Limits, Readable, display_name, resolve
from kebyt5_xm.data.sources.template import Change, Segment, Slot, Template, as_bytes
from kebyt5_xm.data.sources.words import Words
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError
from kebyt5_xm.vocabulary import PAD_ID, encode, encode_bytes

MediumChange = Callable[[int, str, Any], Any]
"""(number of the slot in its example, modality, decoded medium) -> the medium to prepare in its place."""


@dataclass
class ExampleMaker:
    """What a manifest source knows of making examples. `interfaces` are those of the prompt's modalities."""

    prompt: Template
    target: Template
    words: Words | None
    max_source_length: int
    max_target_length: int
    limits: Limits
    allow_remote: bool
    allow_outside: bool
    interfaces: dict[str, MediaInterface] = field(default_factory=dict)

    def segments(self, rows: Rows, number: int, change: Change | None = None) -> list[Segment]:
        """Return the prompt of a row: texts and slots in order, columns' texts changed. Raises `BadSample`."""
        return _rendered(self.prompt, rows, number, change)

    def target_text(self, rows: Rows, number: int) -> str:
        """Return the target of a row. Raises `BadSample`, for what is no label too."""
        text = "".join(str(segment) for segment in _rendered(self.target, rows, number))
        return text if self.words is None else self.word(text, rows, number)

    def word(self, text: str, rows: Rows, number: int) -> str:
        """Return the word that is written for a label as published. Raises `BadSample` for what is no label."""
        assert self.words is not None
        try:
            return self.words.word(text)
        except BadSample as error:
            raise rows.error(number, error.cause) from error

    def example(self, rows: Rows, number: int) -> Example:
        """Return the example of one row; raises `BadSample` with the cause if it cannot be made."""
        target_ids = self._target_ids(rows, number)
        return replace(self.input(self.segments(rows, number), rows, number), target_ids=target_ids)

    def input(
        self, segments: Sequence[Segment], rows: Rows, number: int, change: MediumChange | None = None
    ) -> Example:
        """Return the example of these segments, without a target; raises `BadSample` as `example` does.

        With `change`, media are opened and changed before they are prepared: no cache has the features of those.
        """
        self._check_text(segments, rows, number)
        ids: list[NDArray[np.int16]] = []
        media: list[MediaItem] = []
        position = 0
        for segment in segments:
            if isinstance(segment, Slot):
                prepared, count = self._open(segment, rows, len(media), change)
                ids.append(np.full(count, PAD_ID, dtype=np.int16))
                media.append(MediaItem(segment.modality, prepared, position, count))
            else:
                ids.append(encode(segment) if isinstance(segment, str) else encode_bytes(segment))
            position += len(ids[-1])
        return Example.asked(ids, media)

    def measure(self, rows: Rows, number: int) -> tuple[int, int] | str:
        """Return encoder positions and target ids of a row from its media's headers, or why there are none."""
        try:
            num_targets = len(self._target_ids(rows, number))
            segments = self.segments(rows, number)
            positions = self._check_text(segments, rows, number) + len(END)
            for segment in segments:
                if isinstance(segment, Slot):
                    interface = self.interfaces[segment.modality]
                    found = read_header(self.readable(segment.reference, rows), interface.media, self.limits)
                    positions += interface.num_slots(found)
        except BadSample as error:
            return error.cause
        except UserError as error:  # too short for one feature, say
            return str(error)
        return positions, num_targets

    def readable(self, reference: str | bytes | FileSpan, rows: Rows) -> Readable:
        """Return what may be opened for a reference in a row; raise `MediaError` for what may not."""
        if isinstance(reference, bytes | FileSpan):
            return reference
        return resolve(rows.root, reference, self.allow_remote, self.allow_outside)

    def _check_text(self, segments: Sequence[Segment], rows: Rows, number: int) -> int:
        """Return the bytes of text among `segments`; raise `RowError` if they are too many."""
        num_text = sum(len(as_bytes(s)) for s in segments if not isinstance(s, Slot))
        if num_text > self.max_source_length:
            cause = f"input of {num_text} bytes, limit {self.max_source_length}"
            raise rows.error(number, cause)
        return num_text

    def _open(self, slot: Slot, rows: Rows, place: int, change: MediumChange | None) -> tuple:
        interface = self.interfaces[slot.modality]
        readable = self.readable(slot.reference, rows)
        try:
            if change is None:
                return interface.load(readable, self.limits)
            item = open_media(readable, interface.media, self.limits)
            return interface.prepare(change(place, slot.modality, item))
        except BadSample:
            raise
        except UserError as error:  # too short for one feature, say: this sample's fault
            raise MediaError(display_name(readable), str(error)) from error

    def _target_ids(self, rows: Rows, number: int) -> NDArray[np.int16]:
        ids = encode(self.target_text(rows, number))
        if len(ids) > self.max_target_length:
            cause = f"target of {len(ids)} bytes, limit {self.max_target_length}"
            raise rows.error(number, cause)
        return np.concatenate([ids, END])


def _rendered(template: Template, rows: Rows, number: int, change: Change | None = None) -> list[Segment]:
    row = rows.row(number)
    try:
        return template.render(row, change)
    except BadSample as error:
        raise rows.error(number, error.cause) from error
