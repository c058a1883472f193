"""The text store: a corpus as flat files of bytes, read in place.

A store is a folder. `store.json` describes it; shard NNNNN is two files in the same folder:

    NNNNN.bytes    the documents' bytes end to end, each followed by the separator
    NNNNN.offsets  little-endian uint64, documents + 1 of them; document i and its separator are the bytes
                   [offsets[i], offsets[i + 1]) of the shard

Bytes are their own tokens, so a store needs no tokenization. `kebyt5_xm.data.text.store_writer` writes stores.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.open_files import LazyFile, OpenFile
from kebyt5_xm.errors import UserError

FORMAT = "kebyt5-xm text store"
VERSION = 1
INDEX_NAME = "store.json"
UNFINISHED_NAME = "unfinished.json"


@dataclass(frozen=True)
class Shard:
    """One shard as `store.json` describes it.

    `bytes` includes separators; `longest` (the longest document, in bytes) does not. `digest` is BLAKE2b, 16 bytes in
    hex, of the `.bytes` file followed by the `.offsets` file.
    """

    name: str
    documents: int
    bytes: int
    longest: int
    digest: str


class Store:
    """A finished store, read-only. Opening it only reads `store.json` and checks file sizes.

    Bytes are read by position (`pread`) rather than through a memory map, for three reasons. The kernel maps up to
    2 MiB around each byte, so a map's resident size grew to the size of the store after 30 MB of random reads. A page
    fault costs more than the call. A truncated file raises an error instead of SIGBUS. Either way the data stays in
    the system's page cache (benchmarks/store.py measures both).

    A store can be pickled (workers open it again) and is safe to use after a fork and in threads.

    Raises:
        UserError: the store at `path` is missing, unfinished, truncated or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        index = read_index(self.path)
        self.language: str = index["language"]
        self.separator = bytes.fromhex(index["separator"])
        self.num_documents: int = index["documents"]
        self.num_bytes: int = index["bytes"]
        self.problems: dict[str, int] = index["problems"]
        self.shards = [Shard(**shard) for shard in index["shards"]]
        for shard in self.shards:
            _check_size(self.path / f"{shard.name}.bytes", shard.bytes)
            _check_size(self.path / f"{shard.name}.offsets", 8 * (shard.documents + 1))
        self._byte_ends = np.cumsum([shard.bytes for shard in self.shards], dtype=np.int64)
        self._byte_starts = self._byte_ends - [shard.bytes for shard in self.shards]
        self._document_ends = np.cumsum([shard.documents for shard in self.shards], dtype=np.int64)
        self._files = {
            name: LazyFile(partial(OpenFile, self.path / name))
            for shard in self.shards
            for name in (f"{shard.name}.bytes", f"{shard.name}.offsets")
        }

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any byte of the text, the language, the separator or the shards."""
        contents = [self.language, self.separator.hex(), [asdict(shard) for shard in self.shards]]
        return hashlib.blake2b(json.dumps(contents).encode(), digest_size=8).hexdigest()

    def num_chunks(self, length: int) -> int:
        """Return how many whole chunks of `length` bytes the store holds; a shorter rest is not counted."""
        return self.num_bytes // length

    def chunks(self, rows: NDArray[np.int64], length: int) -> NDArray[np.uint8]:
        """Return the bytes [row * length, (row + 1) * length) of all shards end to end, as uint8 [n, length].

        Raises:
            IndexError: a row outside [0, num_chunks(length)).
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_chunks(length)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.num_chunks(length)} chunks")
        starts = rows * length
        numbers = np.searchsorted(self._byte_ends, starts, side="right")
        offsets = starts - self._byte_starts[numbers]
        chunks = [
            self._read(n, offset, length)
            for n, offset in zip(numbers.tolist(), offsets.tolist(), strict=True)
        ]
        return np.frombuffer(bytearray().join(chunks), np.uint8).reshape(len(rows), length)

    def document(self, index: int) -> bytes:
        """Return document `index` without its separator. Raises IndexError if there is no such document."""
        number, start, stop = self._locate(index)
        return self._read(number, start, stop - start)

    def document_length(self, index: int) -> int:
        """Return the length of document `index` in bytes, without its separator."""
        _, start, stop = self._locate(index)
        return stop - start

    def verify(self) -> Iterator[tuple[Shard, bool]]:
        """Read every shard again; yield it and whether its digest is still correct."""
        for shard in self.shards:
            digest = hashlib.blake2b(digest_size=16)
            for suffix in (".bytes", ".offsets"):
                with (self.path / f"{shard.name}{suffix}").open("rb") as file:
                    while block := file.read(1 << 22):
                        digest.update(block)
            yield shard, digest.hexdigest() == shard.digest

    def _locate(self, index: int) -> tuple[int, int, int]:
        """Return (shard number, start, end) of a document; start and end are offsets in the shard."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        number = int(np.searchsorted(self._document_ends, index, side="right"))
        local = index - int(self._document_ends[number]) + self.shards[number].documents
        offsets = self._pread(f"{self.shards[number].name}.offsets", 16, 8 * local)
        start, stop = np.frombuffer(offsets, "<u8").tolist()
        return number, start, stop - len(self.separator)

    def _read(self, number: int, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` of a shard; they may continue in the next shards."""
        pieces: list[bytes] = []
        while True:
            piece = self._pread(f"{self.shards[number].name}.bytes", length, offset)
            if len(piece) == length:
                return b"".join((*pieces, piece))
            pieces.append(piece)
            length -= len(piece)
            offset += len(piece)
            if offset == self.shards[number].bytes:
                number, offset = number + 1, 0
            elif not piece:
                raise UserError(
                    f"{self.path} became shorter while it was in use, expected it unchanged: start again"
                )

    def _pread(self, name: str, length: int, offset: int) -> bytes:
        try:
            file = self._files[name].get()  # this reference keeps other threads from closing the file
            return os.pread(file.descriptor, length, offset)
        except OSError as error:
            raise UserError(
                f"cannot read {self.path / name} ({error.strerror}), expected the store unchanged: start again"
            ) from error

    def __reduce__(self) -> tuple:
        return _reopen, (str(self.path), self.fingerprint)


def _reopen(path: str, fingerprint: str) -> Store:
    store = Store(path)
    if store.fingerprint != fingerprint:
        raise UserError(f"{path} was rewritten while it was in use, expected it unchanged: start again")
    return store


def read_index(path: Path) -> dict:
    """Return the contents of `store.json`; raise `UserError` if there is no finished store of this version."""
    remedy = "make one with `kebyt5-xm prepare text`"
    if not path.exists():
        raise UserError(f"found nothing at {path}; expected a text store: {remedy}")
    if not (path / INDEX_NAME).exists():
        if (path / UNFINISHED_NAME).exists():
            raise UserError(f"{path} is an unfinished text store: run the command that was writing it again")
        raise UserError(f"{path} is not a text store (it has no {INDEX_NAME}): {remedy}")
    try:
        index = json.loads((path / INDEX_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path / INDEX_NAME} is damaged ({error}): {remedy}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise UserError(f"{path / INDEX_NAME} is not the index of a text store: {remedy}")
    if index["version"] > VERSION:
        raise UserError(
            f"{path} is a store of version {index['version']}, this kebyt5-xm reads up to {VERSION}: "
            "upgrade kebyt5-xm or prepare the text again"
        )
    return index


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.exists() else None
    if found != expected:
        raise UserError(
            f"{path} is {'missing' if found is None else f'{found} bytes long'}, expected {expected} bytes: "
            "the store is damaged; prepare the text again with --overwrite"
        )
