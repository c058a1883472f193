"""JSON lines with random access, through an index of where the lines start.

Plain lines are read in place; `X.index` holds the index. Compressed ones (.gz, .zst, .bz2, .xz) cannot be entered in
the middle, so `X.rows` holds the lines themselves, decompressed, and the index behind them. One JSON array of objects
is read whole, once, and its objects become the lines of such a file. Both files are

    4096 bytes   a JSON object that describes the rest, padded with spaces
    (X.rows)     the lines, and zeros up to a multiple of 8
    uint64 each  where every row starts in its file, in bytes, and where the last one ends
    uint64 each  for every blank line, the number of rows before it

Lines of whitespace alone are no rows. A byte order mark is left out.
"""

import hashlib
import json
import os
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.open_files import LazyFile, OpenFile
from kebyt5_xm.data.tables.derived import places, state_of, write_derived
from kebyt5_xm.data.tables.json_value import UTF_16, json_value
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES, Row, Rows
from kebyt5_xm.data.text.blocks import DAMAGE, beginning, read_blocks
from kebyt5_xm.data.text.corpus import COMPRESSIONS, Compression, File, Piece
from kebyt5_xm.errors import UserError

FORMAT, VERSION = "kebyt5-xm row index", 1
HEADER_BYTES = 4096
GZIP = b"\x1f\x8b\x08"
SPACE = np.isin(np.arange(256), list(b" \t\r\n"))


class JsonLines(Rows):
    """The rows of a file of JSON lines, plain or compressed, or of one JSON array.

    Making the index reads the file once. Raises `UserError` for a file that cannot be read to its end, or is UTF-16.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        compression = COMPRESSIONS.get(self.path.suffix.lower())
        start = beginning(self.path, compression)
        if start.startswith(GZIP):
            raise UserError(f"{path} is compressed by gzip, expected lines; add .gz to its name")
        if start.startswith(UTF_16) or b"\0" in start[:4]:
            raise UserError(
                f"{path} is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
            )
        is_array = start.removeprefix(BOM_UTF8).lstrip().startswith(b"[")
        suffix = ".rows" if compression or is_array else ".index"
        state = state_of(self.path)
        index = _find(self.path, suffix, state)
        if index is None:
            blocks = partial(_array_lines if is_array else _blocks, self.path, compression)
            index = _make(self.path, suffix, state, blocks)
        self.fingerprint = index.digest
        self._length = len(index.starts) - 1
        kept = index if index.place is None else None
        self._opened = LazyFile(partial(_open, self.path, suffix, state, kept), num_files=2)
        self._opened.get()

    def __len__(self) -> int:
        return self._length

    def line(self, index: int) -> int:
        return index + 1 + int(np.searchsorted(self._opened.get()[0].blanks, index, side="right"))

    def row(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        opened, file = self._opened.get()
        start, end = int(opened.starts[index]), int(opened.starts[index + 1])
        if end - start > MAX_ROW_BYTES:
            raise self.error(index, f"it has {end - start} bytes, expected at most {MAX_ROW_BYTES}")
        try:
            # pread moves no shared position: processes that were forked may use one descriptor.
            row = json_value(os.pread(file.descriptor, end - start, start))
        except (ValueError, OSError) as error:
            raise self.error(index, str(error)) from None
        if not isinstance(row, dict):
            raise self.error(index, f"found a JSON {type(row).__name__}, expected an object")
        return Row(row, row.__getitem__)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        try:
            columns = super().columns
        except UserError as error:
            raise UserError(
                f"{error}. Where the file is one JSON document instead of an object a line, give `format: "
                "{class_path: kebyt5_xm.data.layouts.JsonDocuments}`"
            ) from None
        first = self.row(0) if len(self) == 1 else {}
        if first and all(isinstance(value, dict) and "0" in value for value in first.values()):
            raise UserError(
                f"found one row in {self.path}, whose columns are objects with the keys 0, 1, 2 ..., as pandas "
                "writes a table by default; expected a row a line: write it with "
                'to_json(OUT, orient="records", lines=True)'
            )
        return columns


@dataclass
class _Index:
    """Where rows start in the file `lines`. `place` is the file of this index, None where it is in memory alone."""

    lines: Path
    starts: NDArray[np.uint64]
    blanks: NDArray[np.uint64]
    digest: str
    place: Path | None = None


def _open(path: Path, suffix: str, state: dict[str, Any], kept: _Index | None) -> tuple[_Index, OpenFile]:
    """Open the index, which is `kept` in memory or lies in a file, and the file that it is of."""
    index = kept or _find(path, suffix, state)
    file = OpenFile(path if index is None else index.lines)
    status = os.fstat(file.descriptor)
    unchanged = suffix == ".rows" or (status.st_size, status.st_mtime_ns) == (state["size"], state["time"])
    if index is None or not unchanged:
        raise UserError(f"{path} was changed while it was in use, expected it unchanged; start again")
    return index, file


def _find(path: Path, suffix: str, state: dict[str, Any]) -> _Index | None:
    for place in places(path, suffix):
        index = _load(place, state)
        if index is not None:
            index.lines = place if suffix == ".rows" else path
            return index
    return None


def _load(place: Path, state: dict[str, Any]) -> _Index | None:
    """Map an index file, or return None if there is none here that fits the state of the manifest."""
    try:
        with place.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        if (header["format"], header["version"], header["state"]) != (FORMAT, VERSION, state):
            return None
        rows, blanks, at = header["rows"], header["blanks"], header["at"]
        if place.stat().st_size != at + 8 * (rows + 1 + blanks):
            return None
        table = np.asarray(np.memmap(place, dtype="<u8", mode="r", offset=at))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _Index(place, table[: rows + 1], table[rows + 1 :], header["digest"], place)


def _make(path: Path, suffix: str, state: dict[str, Any], blocks: Callable[[], Iterable[bytes]]) -> _Index:
    def write(file: BinaryIO) -> None:
        file.write(b" " * HEADER_BYTES)
        index = _scan(path, blocks(), file if suffix == ".rows" else None)
        file.write(b"\0" * (-file.tell() % 8))
        header = {
            "format": FORMAT,
            "version": VERSION,
            "state": state,
            "rows": len(index.starts) - 1,
            "blanks": len(index.blanks),
            "at": file.tell(),
            "digest": index.digest,
        }
        file.write(index.starts.astype("<u8").data)
        file.write(index.blanks.astype("<u8").data)
        file.seek(0)
        file.write(json.dumps(header).encode())

    try:
        write_derived(path, suffix, write)
    except UserError:
        if suffix == ".rows":
            raise
        # Nowhere to keep it: 8 bytes a row in memory, made again next time.
        return _scan(path, blocks(), None)
    index = _find(path, suffix, state)
    if index is None:
        raise UserError(f"{path} changed while it was read, expected it to stay as it is; start again")
    return index


def _scan(path: Path, blocks: Iterable[bytes], copy: BinaryIO | None) -> _Index:
    """Find the rows; write the lines to `copy`, where there is one, and count from its position there."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        start = len(BOM_UTF8) * file.read(len(BOM_UTF8)).startswith(BOM_UTF8)
    position = copy.tell() if copy else start
    starts: list[NDArray[np.int64]] = []
    blanks: list[NDArray[np.int64]] = []
    num_rows = 0
    # The line that goes on in the next block, and what it has but spaces.
    line_start, unfinished = position, 0
    for block in blocks:
        digest.update(block)
        if copy:
            copy.write(block)
        letters = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(letters == ord("\n"))
        if not len(ends):
            unfinished += int((~SPACE[letters]).sum())
        else:
            total = np.cumsum(~SPACE[letters], dtype=np.int64)
            filled = np.diff(total[ends], prepend=-unfinished) > 0
            starts.append(np.concatenate([[line_start], position + ends[:-1] + 1])[filled])
            blanks.append((num_rows + np.cumsum(filled))[~filled])
            num_rows += int(filled.sum())
            line_start, unfinished = position + int(ends[-1]) + 1, int(total[-1] - total[ends[-1]])
        position += len(block)
    if unfinished:
        starts.append(np.array([line_start]))
    starts.append(np.array([position]))
    return _Index(
        path,
        np.concatenate(starts).astype(np.uint64),
        np.concatenate([[], *blanks]).astype(np.uint64),
        digest.hexdigest(),
    )


def _blocks(path: Path, compression: Compression | None) -> Iterable[bytes]:
    file = File(str(path), "jsonl", compression, path.stat().st_size, "")
    blocks: Iterator[bytes] = iter(read_blocks(Piece(file, 0, None, file.size), lambda _: None))
    try:
        yield from blocks
    except (*DAMAGE, UserError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"cannot read {path} to its end ({type(cause).__name__}: {cause}); expected a whole file: get it again"
        ) from error


def _array_lines(path: Path, compression: Compression | None) -> Iterable[bytes]:
    """Yield the entries of a JSON array, each as a line."""
    try:
        entries = json_value(b"".join(_blocks(path, compression)))
    except ValueError as error:
        raise UserError(
            f"{path} begins as one JSON array, which cannot be read ({error}); expected an array of objects, or an "
            "object a line: correct the file, or get it again"
        ) from None
    for entry in entries:
        try:
            yield json.dumps(entry).encode() + b"\n"
        except (
            RecursionError
        ):  # what can be read can nearly always be written: there is little between the limits
            yield b"null\n"
