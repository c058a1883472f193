"""JSON lines with random access, through an index of where the lines start.

Plain lines are read in place; `X.index` holds the index. Compressed ones (.gz, .zst) cannot be entered in the
middle, so `X.rows` holds the lines themselves, decompressed, and the index behind them. Both files are

    4096 bytes   a JSON object that describes the rest, padded with spaces
    (X.rows)     the lines, and zeros up to a multiple of 8
    uint64 each  where every row starts in its file, in bytes, and where the last one ends
    uint64 each  for every blank line, the number of rows before it

Lines of whitespace alone are no rows. A byte order mark is left out.
"""

import hashlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.bad_sample import RowError
from kebyt5_xm.data.blocks import DAMAGE, read_blocks
from kebyt5_xm.data.corpus import COMPRESSIONS, File, Piece
from kebyt5_xm.data.derived import places, state_of, write_derived
from kebyt5_xm.data.rows import MAX_ROW_BYTES, Rows
from kebyt5_xm.errors import UserError

FORMAT, VERSION = "kebyt5-xm row index", 1
HEADER_BYTES = 4096
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SPACE = np.isin(np.arange(256), list(b" \t\r\n"))


class JsonLines(Rows):
    """The rows of a file of JSON lines, plain or compressed. Making the index reads the file once."""

    def __init__(self, path: Path):
        super().__init__(path)
        compression = COMPRESSIONS.get(self.path.suffix.lower())
        suffix = ".rows" if compression else ".index"
        state = state_of(self.path)
        index = _find(self.path, suffix, state) or _make(self.path, suffix, state, compression)
        self.fingerprint = index.digest
        self._starts = index.starts
        self._blanks = index.blanks
        self._file = os.open(index.lines, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def line(self, index: int) -> int:
        return index + 1 + int(np.searchsorted(self._blanks, index, side="right"))

    def row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = int(self._starts[index]), int(self._starts[index + 1])
        if end - start > MAX_ROW_BYTES:
            raise self._error(index, f"it has {end - start} bytes, expected at most {MAX_ROW_BYTES}")
        try:
            # pread moves no shared position: processes that were forked may use one descriptor.
            row = _JSON.decode(os.pread(self._file, end - start, start).decode())
        except json.JSONDecodeError as error:
            raise self._error(index, f"not JSON: {error.msg} at character {error.pos}") from None
        except (ValueError, RecursionError, OSError) as error:
            raise self._error(index, f"not JSON: {type(error).__name__}: {error}") from None
        if not isinstance(row, dict):
            raise self._error(index, f"found a JSON {type(row).__name__}, expected an object")
        return row

    def _error(self, index: int, cause: str) -> RowError:
        return RowError(str(self.path), self.line(index), cause)


@dataclass
class _Index:
    lines: Path
    starts: NDArray[np.uint64]
    blanks: NDArray[np.uint64]
    digest: str


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
    return _Index(place, table[: rows + 1], table[rows + 1 :], header["digest"])


def _make(path: Path, suffix: str, state: dict[str, Any], compression: Literal["gz", "zst"] | None) -> _Index:
    def write(file: BinaryIO) -> None:
        file.write(b" " * HEADER_BYTES)
        index = _scan(path, compression, file if compression else None)
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
        if compression:
            raise
        return _scan(path, None, None)  # nowhere to keep it: 8 bytes a row in memory, made again next time
    index = _find(path, suffix, state)
    if index is None:
        raise UserError(f"{path} changed while it was read, expected it to stay as it is; start again")
    return index


def _scan(path: Path, compression: Literal["gz", "zst"] | None, copy: BinaryIO | None) -> _Index:
    """Find the rows; write the lines to `copy`, where there is one, and count from its position there."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        start = len(BYTE_ORDER_MARK) * file.read(len(BYTE_ORDER_MARK)).startswith(BYTE_ORDER_MARK)
    position = copy.tell() if copy else start
    starts: list[NDArray[np.int64]] = []
    blanks: list[NDArray[np.int64]] = []
    num_rows = 0
    line_start, unfinished = (
        position,
        0,
    )  # the line that goes on in the next block, and what it has but spaces
    for block in _blocks(path, compression):
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


def _blocks(path: Path, compression: Literal["gz", "zst"] | None) -> Iterable[bytes]:
    file = File(str(path), "jsonl", compression, path.stat().st_size, "")
    blocks: Iterator[bytes] = iter(read_blocks(Piece(file, 0, None, file.size), lambda _: None))
    try:
        yield from blocks
    except (*DAMAGE, UserError) as error:
        cause = error.__cause__ or error
        raise UserError(
            f"cannot read {path} to its end ({type(cause).__name__}: {cause}); expected a whole file: get it again"
        ) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse)
"""Made once: `json.loads` with an option makes one for every row."""
