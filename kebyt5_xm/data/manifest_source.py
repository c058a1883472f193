"""The manifest source: rows of a table as examples, by a prompt and a target."""

import logging

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.bad_sample import BadSample, MediaError, RowError
from kebyt5_xm.data.manifest import open_rows
from kebyt5_xm.data.media import open_media
from kebyt5_xm.data.reference import Limits, resolve
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.data.source import Example, MediaItem, Part, Source
from kebyt5_xm.data.template import Slot, Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.modality import MediaInterface
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, encode

_LOG = logging.getLogger(__name__)
_EMPTY = np.asarray([EOS_ID], dtype=np.int16)


class Manifest(Source):
    """Examples from a manifest: JSON lines, also .gz and .zst, or parquet.

    Args:
        path: the manifest; media in it are paths relative to its folder.
        prompt: the input, with `{column}` for text and `{column:modality}` for the slots of an image or a
            recording; `{{` is a brace. Nothing else is special.
        target: the text to be written, with `{column}` alike.
        weight: share of this source's examples in the mixture, relative to the other sources.
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
        validation: str | None = None,
        max_validation_examples: int = 1000,
        max_source_length: int = 1024,
        max_target_length: int = 1024,
        limits: Limits | None = None,
        allow_remote: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.weight = weight
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
        return [Part("", len(self.rows), 1.0, self.rows.fingerprint)]

    def validation_parts(self) -> list[Part]:
        if self.held_out is None:
            return []
        num_rows = min(len(self.held_out), self.max_validation_examples)
        return [Part("", num_rows, 1.0, self.held_out.fingerprint)]

    def load(
        self,
        part: NDArray[np.int64],
        row: NDArray[np.int64],
        index: NDArray[np.uint64],
        seed: int,
        held_out: bool,
    ) -> list[Example]:
        rows = self._tables()[held_out]
        return [self._example(rows, int(number)) for number in row]

    def _example(self, rows: Rows, number: int) -> Example:
        try:
            return self.example(rows, number)
        except BadSample as error:
            _LOG.warning("%s, line %d is left out: %s", rows.path, rows.line(number), error)
            return Example(_EMPTY, _EMPTY, counted=False)

    def example(self, rows: Rows, number: int) -> Example:
        """Return the example of one row; raises `BadSample` with the cause if it cannot be made."""
        row = rows.row(number)
        target_ids = self._target_ids(row, rows, number)
        ids: list[NDArray[np.int16]] = []
        media: list[MediaItem] = []
        position = num_text = 0
        for segment in self._rendered(self.prompt, row, rows, number):
            if isinstance(segment, Slot):
                item = self._open(segment, rows)
                ids.append(np.full(item[1], PAD_ID, dtype=np.int16))
                media.append(MediaItem(segment.modality, item[0], position, item[1]))
            else:
                ids.append(encode(segment))
                num_text += len(ids[-1])
            position += len(ids[-1])
        if num_text > self.max_source_length:
            raise RowError(
                str(rows.path),
                rows.line(number),
                f"input of {num_text} bytes, limit {self.max_source_length}",
            )
        return Example(np.concatenate([*ids, _EMPTY]), target_ids, tuple(media))

    def _open(self, slot: Slot, rows: Rows) -> tuple:
        interface = self.interfaces[slot.modality]
        source = slot.reference
        if isinstance(source, str):
            source = resolve(rows.path.parent, source, self.allow_remote, self.allow_outside)
        item = open_media(source, interface.media, self.limits)
        try:
            return interface.prepare(item)
        except BadSample:
            raise
        except UserError as error:  # too short for one feature, say: this sample's fault
            raise MediaError(str(slot.reference)[:200], str(error)) from error

    def _rendered(self, template: Template, row: dict, rows: Rows, number: int) -> list:
        try:
            return template.render(row)
        except BadSample as error:
            raise RowError(str(rows.path), rows.line(number), error.cause) from error

    def _target_ids(self, row: dict, rows: Rows, number: int) -> NDArray[np.int16]:
        text = "".join(self._rendered(self.target, row, rows, number))
        ids = encode(text)
        if len(ids) > self.max_target_length:
            raise RowError(
                str(rows.path),
                rows.line(number),
                f"target of {len(ids)} bytes, limit {self.max_target_length}",
            )
        return np.concatenate([ids, _EMPTY])

    def target_lengths(
        self,
        part: NDArray[np.int64],
        row: NDArray[np.int64],
        index: NDArray[np.uint64],
        seed: int,
        held_out: bool,
    ) -> NDArray[np.int64]:
        rows = self._tables()[held_out]
        lengths = np.zeros(len(row), dtype=np.int64)
        for place, number in enumerate(row):
            try:
                lengths[place] = len(self._target_ids(rows.row(int(number)), rows, int(number)))
            except BadSample:
                continue
        return lengths

    def settings(self) -> dict[str, object]:
        return {
            "prompt": self.prompt.text,
            "target": self.target.text,
            "max_source_length": self.max_source_length,
            "max_target_length": self.max_target_length,
            **{
                f"{name}.preprocessing": interface.preprocessor.fingerprint()[:16]
                for name, interface in self.interfaces.items()
            },
        }
