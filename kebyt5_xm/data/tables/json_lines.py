"""JSON lines with random access, through an index of line offsets.

Plain files are read in place, and `X.index` holds their index. Compressed files (.gz, .zst, .bz2, .xz) cannot be read
from the middle, so `X.rows` holds the decompressed lines, followed by the index. A JSON array of objects is read once
as a whole, and its objects become the lines of such an `X.rows` file. Both files consist of

    4096 bytes   header: a JSON object, padded with spaces
    (X.rows)     the lines, and zeros up to a multiple of 8
    uint64 each  the byte offset of every row in its file, and the end of the last row
    uint64 each  for every blank line, the number of rows before it

Blank lines are not rows. A byte order mark is dropped.
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
from kebyt5_xm.data.tables.derived import list_derived_paths, read_file_state, write_derived
from kebyt5_xm.data.tables.json_value import UTF_16, parse_json
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES, Row, Rows
from kebyt5_xm.data.text.blocks import DAMAGE_ERRORS, read_blocks, read_start
from kebyt5_xm.data.text.corpus import COMPRESSIONS, Compression, File, Piece
from kebyt5_xm.errors import UserError

FORMAT, VERSION = "kebyt5-xm row index", 1
HEADER_BYTES = 4096
GZIP_MAGIC = b"\x1f\x8b\x08"
IS_SPACE = np.isin(np.arange(256), list(b" \t\r\n"))


class JsonLines(Rows):
    """The rows of a file of JSON lines, plain or compressed, or of one JSON array.

    Making the index reads the file once. Raises `UserError` if the file cannot be read to its end or is UTF-16.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        compression = COMPRESSIONS.get(self.path.suffix.lower())
        start = read_start(self.path, compression)
        if start.startswith(GZIP_MAGIC):
            raise UserError(f"{path} is compressed by gzip, expected text lines; add .gz to its name")
        if start.startswith(UTF_16) or b"\0" in start[:4]:
            raise UserError(
                f"{path} is UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 IN > OUT"
            )
        is_array = start.removeprefix(BOM_UTF8).lstrip().startswith(b"[")
        suffix = ".rows" if compression or is_array else ".index"
        state = read_file_state(self.path)
        index = _find_index(self.path, suffix, state)
        if index is None:
            blocks = partial(_read_array if is_array else _read_lines, self.path, compression)
            index = _write_index(self.path, suffix, state, blocks)
        self.fingerprint = index.digest
        self._length = len(index.starts) - 1
        in_memory = index if index.place is None else None
        self._opened = LazyFile(partial(_open, self.path, suffix, state, in_memory), num_files=2)
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
            # pread moves no file position, so forked processes may share the descriptor.
            row = parse_json(os.pread(file.descriptor, end - start, start))
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
                f"{error}. If the file is one JSON document instead of one object per line, set `format: "
                "{class_path: kebyt5_xm.data.layouts.JsonDocuments}`"
            ) from None
        first = self.row(0) if len(self) == 1 else {}
        if first and all(isinstance(value, dict) and "0" in value for value in first.values()):
            raise UserError(
                f"found one row in {self.path} with columns that are objects with the keys 0, 1, 2 ... (pandas' "
                "default JSON), expected one row per line: write it with "
                'to_json(OUT, orient="records", lines=True)'
            )
        return columns


@dataclass
class _Index:
    """Byte offsets of the rows of the file `lines`. `place` is the index file, or None if it is only in memory."""

    lines: Path
    starts: NDArray[np.uint64]
    blanks: NDArray[np.uint64]
    digest: str
    place: Path | None = None


def _open(
    path: Path, suffix: str, state: dict[str, Any], in_memory: _Index | None
) -> tuple[_Index, OpenFile]:
    """Open the file of lines and its index, which is `in_memory` or in an index file."""
    index = in_memory or _find_index(path, suffix, state)
    file = OpenFile(path if index is None else index.lines)
    status = os.fstat(file.descriptor)
    unchanged = suffix == ".rows" or (status.st_size, status.st_mtime_ns) == (state["size"], state["time"])
    if index is None or not unchanged:
        raise UserError(f"{path} changed while it was in use, expected it unchanged; start again")
    return index, file


def _find_index(path: Path, suffix: str, state: dict[str, Any]) -> _Index | None:
    for place in list_derived_paths(path, suffix):
        index = _load_index(place, state)
        if index is not None:
            index.lines = place if suffix == ".rows" else path
            return index
    return None


def _load_index(place: Path, state: dict[str, Any]) -> _Index | None:
    """Map an index file; return None if it is missing or does not match the manifest's state."""
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


def _write_index(
    path: Path, suffix: str, state: dict[str, Any], blocks: Callable[[], Iterable[bytes]]
) -> _Index:
    def write(file: BinaryIO) -> None:
        file.write(b" " * HEADER_BYTES)
        index = _scan_rows(path, blocks(), file if suffix == ".rows" else None)
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
        # The index cannot be written anywhere: hold it in memory (8 bytes per row) and rebuild it next time.
        return _scan_rows(path, blocks(), None)
    index = _find_index(path, suffix, state)
    if index is None:
        raise UserError(f"{path} changed while it was read, expected it unchanged; start again")
    return index


def _scan_rows(path: Path, blocks: Iterable[bytes], copy: BinaryIO | None) -> _Index:
    """Find the rows. If `copy` is given, write the lines to it and count offsets in it."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        start = len(BOM_UTF8) * file.read(len(BOM_UTF8)).startswith(BOM_UTF8)
    position = copy.tell() if copy else start
    starts: list[NDArray[np.int64]] = []
    blanks: list[NDArray[np.int64]] = []
    num_rows = 0
    # The start of the line that continues in the next block, and its number of non-space bytes so far.
    line_start, unfinished = position, 0
    for block in blocks:
        digest.update(block)
        if copy:
            copy.write(block)
        letters = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(letters == ord("\n"))
        if not len(ends):
            unfinished += int((~IS_SPACE[letters]).sum())
        else:
            total = np.cumsum(~IS_SPACE[letters], dtype=np.int64)
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


def _read_lines(path: Path, compression: Compression | None) -> Iterable[bytes]:
    file = File(str(path), "jsonl", compression, path.stat().st_size, "")
    blocks: Iterator[bytes] = iter(read_blocks(Piece(file, 0, None, file.size), lambda _: None))
    try:
        yield from blocks
    except (*DAMAGE_ERRORS, UserError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"cannot read {path} to its end ({type(cause).__name__}: {cause}), expected a whole file: get it again"
        ) from error


def _read_array(path: Path, compression: Compression | None) -> Iterable[bytes]:
    """Yield each entry of a JSON array as a line."""
    try:
        entries = parse_json(b"".join(_read_lines(path, compression)))
    except ValueError as error:
        raise UserError(
            f"{path} begins as one JSON array, which cannot be read ({error}); expected an array of objects, or one "
            "object per line: correct the file, or get it again"
        ) from None
    for entry in entries:
        try:
            yield json.dumps(entry).encode() + b"\n"
        except RecursionError:  # nested almost too deeply to read: a row that is refused on use
            yield b"null\n"
