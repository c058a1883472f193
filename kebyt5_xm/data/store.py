"""The text store: a corpus as flat files of bytes, read by memory-mapping.

A store is a folder. `store.json` says what it holds; shard NNNNN is two files beside it:

    NNNNN.bytes    the documents' bytes end to end, each followed by the separator
    NNNNN.offsets  little-endian uint64, documents + 1 of them; document i and its separator are the bytes
                   [offsets[i], offsets[i + 1]) of the shard

Bytes are their own tokens, so a store is the corpus. `kebyt5_xm.data.store_writer` writes stores.
"""

import hashlib
import json
import mmap
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError

FORMAT = "kebyt5-xm text store"
VERSION = 1
INDEX_NAME = "store.json"
UNFINISHED_NAME = "unfinished.json"
MAX_OPEN_SHARDS = 128
"""A mapped file keeps its descriptor, and the usual limit is 1024 a process: this leaves room for several
stores. What is opened beyond it closes the shard that was used longest ago."""
ROWS_PER_RELEASE = 64
"""Rows copied before the mapped pages are given back. The kernel maps up to 2 MiB around a byte that is
touched (ext4, Linux 6), so that reading 30 MB at random had mapped the whole of a 4 GB file."""


@dataclass(frozen=True)
class Shard:
    """One shard as `store.json` describes it.

    `bytes` counts separators, `longest` (the longest document, in bytes) does not. `digest` is blake2b, 16
    bytes in hex, over the `.bytes` file followed by the `.offsets` file.
    """

    name: str
    documents: int
    bytes: int
    longest: int
    digest: str


class _OpenShard:
    """The mapped files of a shard."""

    def __init__(self, directory: Path, shard: Shard) -> None:
        self._maps: list[mmap.mmap] = []
        self._offsets_path = directory / f"{shard.name}.offsets"
        self.bytes = self._map(directory / f"{shard.name}.bytes", "u1")

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        return self._map(self._offsets_path, "<u8")

    def copy(self, starts: NDArray[np.int64], out: NDArray[np.uint8], where: NDArray[np.int64]) -> None:
        """Copy the bytes [start, start + length) of the shard into the rows `where` of `out` [n, length]."""
        length = out.shape[1]
        # Row s of this overlapping view is the bytes [s, s + length): one gather copies a group of rows.
        windows = np.lib.stride_tricks.as_strided(
            self.bytes, (len(self.bytes) - length + 1, length), (1, 1), writeable=False
        )
        for first in range(0, len(where), ROWS_PER_RELEASE):
            group = slice(first, first + ROWS_PER_RELEASE)
            out[where[group]] = windows[starts[group]]
            self.release()

    def release(self) -> None:
        """Give mapped pages back; they stay in the page cache, and the next touch maps them again."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def _map(self, path: Path, dtype: str) -> NDArray:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.empty(0, dtype)
        with path.open("rb") as file:
            self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return np.frombuffer(self._maps[-1], dtype)


class Store:
    """A finished store, read-only. Opening reads `store.json` and compares file sizes with it; nothing else.

    A store may be pickled (workers open it again) and is safe to use after a fork. Resident memory does not
    grow with the store's size.

    Raises:
        UserError: no store at `path`, an unfinished or truncated one, or one of a newer version.
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
        self._document_ends = np.cumsum([shard.documents for shard in self.shards], dtype=np.int64)
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any byte of the text, the language, the separator or the shards."""
        contents = [self.language, self.separator.hex(), [asdict(shard) for shard in self.shards]]
        return hashlib.blake2b(json.dumps(contents).encode(), digest_size=8).hexdigest()

    def num_chunks(self, length: int) -> int:
        """Return how many whole chunks of `length` bytes the store holds; the rest at its end is left out."""
        return self.num_bytes // length

    def split(self, share: float, length: int) -> tuple[range, range]:
        """Return the chunk rows to train on and those held out: the last `share` of the store's chunks.

        Raises:
            UserError: one of the two would be empty.
        """
        num_chunks = self.num_chunks(length)
        first = num_chunks - int(num_chunks * share)
        if not 0 < first < num_chunks:
            raise UserError(
                f"{self.path} has {num_chunks} chunks of {length} bytes: {first} to train on and "
                f"{num_chunks - first} to validate on at a share of {share}, expected at least one each; "
                "change the share, shorten the inputs or add text"
            )
        return range(first), range(first, num_chunks)

    def chunks(self, rows: NDArray[np.int64], length: int) -> NDArray[np.uint8]:
        """Return the bytes [row * length, (row + 1) * length) of all shards end to end, as uint8 [n, length].

        Raises:
            IndexError: a row outside [0, num_chunks(length)).
        """
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_chunks(length)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.num_chunks(length)} chunks")
        starts = rows * length
        first = np.searchsorted(self._byte_ends, starts, side="right")
        last = np.searchsorted(self._byte_ends, starts + length - 1, side="right")
        out = np.empty((len(rows), length), dtype=np.uint8)
        whole = first == last
        for number in np.unique(first[whole]):
            where = np.flatnonzero(whole & (first == number))
            begin = self._byte_ends[number] - self.shards[number].bytes
            self._shard(int(number)).copy(starts[where] - begin, out, where)
        for row in np.flatnonzero(~whole):
            out[row] = np.frombuffer(self._read(int(starts[row]), length), np.uint8)
        return out

    def document(self, index: int) -> bytes:
        """Return document `index` without its separator. Raises IndexError beyond the last."""
        shard, start, stop = self._locate(index)
        document = shard.bytes[start:stop].tobytes()
        shard.release()
        return document

    def document_length(self, index: int) -> int:
        """Return the bytes of document `index`, its separator not counted."""
        shard, start, stop = self._locate(index)
        shard.release()
        return stop - start

    def verify(self) -> Iterator[tuple[Shard, bool]]:
        """Read every shard again, yielding it and whether it is what was written (by its digest)."""
        for shard in self.shards:
            digest = hashlib.blake2b(digest_size=16)
            for suffix in (".bytes", ".offsets"):
                with (self.path / f"{shard.name}{suffix}").open("rb") as file:
                    while block := file.read(1 << 22):
                        digest.update(block)
            yield shard, digest.hexdigest() == shard.digest

    def _locate(self, index: int) -> tuple[_OpenShard, int, int]:
        """Return where in a shard a document begins and ends."""
        if not 0 <= index < self.num_documents:
            raise IndexError(f"document {index} of {self.num_documents}")
        number = int(np.searchsorted(self._document_ends, index, side="right"))
        shard = self._shard(number)
        local = index - int(self._document_ends[number]) + self.shards[number].documents
        start, stop = (int(offset) for offset in shard.offsets[local : local + 2])
        return shard, start, stop - len(self.separator)

    def _read(self, start: int, length: int) -> bytes:
        """Return bytes that straddle shards."""
        pieces = []
        while length > 0:
            number = int(np.searchsorted(self._byte_ends, start, side="right"))
            shard = self._shard(number)
            local = start - int(self._byte_ends[number]) + self.shards[number].bytes
            pieces.append(shard.bytes[local : local + length].tobytes())
            shard.release()
            start, length = start + len(pieces[-1]), length - len(pieces[-1])
        return b"".join(pieces)

    def _shard(self, number: int) -> _OpenShard:
        if number not in self._open:
            if len(self._open) >= MAX_OPEN_SHARDS:
                self._open.popitem(last=False)
            self._open[number] = _OpenShard(self.path, self.shards[number])
        self._open.move_to_end(number)
        return self._open[number]

    def __reduce__(self) -> tuple:
        return _reopen, (str(self.path), self.fingerprint)


def _reopen(path: str, fingerprint: str) -> Store:
    store = Store(path)
    if store.fingerprint != fingerprint:
        raise UserError(f"{path} was written anew while it was in use; expected it unchanged: start again")
    return store


def read_index(path: Path) -> dict:
    """Return what `store.json` says; raise `UserError` where there is no finished store of this version."""
    remedy = "make one with `kebyt5-xm prepare text`"
    if not path.exists():
        raise UserError(f"found nothing at {path}; expected a text store: {remedy}")
    if not (path / INDEX_NAME).exists():
        if (path / UNFINISHED_NAME).exists():
            raise UserError(
                f"{path} is an unfinished text store: run again what was making it"
            )
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
