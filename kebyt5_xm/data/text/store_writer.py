"""Writes text stores, one shard at a time. A shard has temporary file names until it is complete and synced.

`store.json` is written last, by rename, so a killed process never leaves a store that looks finished but is not.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kebyt5_xm.data.text.store import FORMAT, INDEX_NAME, VERSION, Shard
from kebyt5_xm.durable import durable_file, sync
from kebyt5_xm.errors import UserError

SHARD_BYTES = 1 << 30


class ShardWriter:
    """Writes one shard within a `with` block. `close`, called last, publishes it; an error removes its files."""

    def __init__(self, directory: Path, name: str, separator: bytes) -> None:
        self.directory = directory
        self.name = name
        self.separator = separator
        self.documents = 0
        self.bytes = 0
        self.longest = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._open = ExitStack()
        self._bytes_file = self._open.enter_context(durable_file(directory / f"{name}.bytes"))
        self._offsets_file = self._open.enter_context(durable_file(directory / f"{name}.offsets"))
        self._offsets_file.write(bytes(8))

    def write(self, documents: Sequence[bytes]) -> None:
        """Append documents, each followed by the separator."""
        if not documents:
            return
        lengths = np.fromiter(map(len, documents), dtype="<u8", count=len(documents))
        offsets = np.cumsum(lengths + len(self.separator), dtype="<u8") + np.uint64(self.bytes)
        data = self.separator.join((*documents, b""))
        self._bytes_file.write(data)
        self._digest.update(data)
        self._offsets_file.write(offsets.tobytes())
        self.documents += len(documents)
        self.bytes += len(data)
        self.longest = max(self.longest, int(lengths.max()))

    def close(self) -> Shard:
        """Sync and rename the two files; return the shard's entry for `store.json`."""
        self._open.close()
        with (self.directory / f"{self.name}.offsets").open("rb") as file:
            while block := file.read(1 << 22):
                self._digest.update(block)
        return Shard(self.name, self.documents, self.bytes, self.longest, self._digest.hexdigest())

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        """Remove the files unless the shard was closed."""
        self._open.__exit__(*error)


class StoreWriter:
    """Writes a whole store in one process: `with StoreWriter(path, "ko") as store: store.write(document)`.

    The store appears when the block ends without an error. Large corpora are prepared in parallel by
    `kebyt5_xm.commands.prepare` instead.

    Raises:
        UserError: `path` exists and is not an empty folder, or no document was written.
    """

    def __init__(
        self, path: str | Path, language: str, separator: bytes = b"\n", shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.path = Path(path)
        self.language = language
        self.separator = separator
        self.shard_bytes = shard_bytes
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{path} exists, expected a new or empty folder: name another one")
        self.path.mkdir(parents=True, exist_ok=True)
        self._shards: list[Shard] = []
        self._writer = ShardWriter(self.path, shard_name(0), separator)

    def write(self, document: bytes) -> None:
        """Append one document."""
        if self._writer.bytes >= self.shard_bytes:
            self._shards.append(self._writer.close())
            self._writer = ShardWriter(self.path, shard_name(len(self._shards)), self.separator)
        self._writer.write([document])

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._writer.__exit__(kind, error, trace)
            return
        self._shards.append(self._writer.close())
        finish_store(self.path, self.language, self.separator, self._shards, problems={}, made_from={})


def shard_name(number: int) -> str:
    """Return `00007` for 7."""
    return f"{number:05d}"


def finish_store(
    directory: Path,
    language: str,
    separator: bytes,
    shards: Sequence[Shard],
    problems: dict[str, int],
    made_from: dict[str, object],
) -> None:
    """Write `store.json`, the last step of making a store.

    Args:
        problems: cause -> number of documents (documents with invalid UTF-8 count even if they are kept).
        made_from: inputs and options to record, for people and model cards.

    Raises:
        UserError: the shards hold no document.
    """
    documents = sum(shard.documents for shard in shards)
    if not documents:
        causes = ", ".join(f"{count} x {cause}" for cause, count in problems.items()) or "nothing was read"
        raise UserError(
            f"found 0 documents ({causes}), expected at least one: check the inputs and the options"
        )
    index = {
        "format": FORMAT,
        "version": VERSION,
        "language": language,
        "separator": separator.hex(),
        "documents": documents,
        "bytes": sum(shard.bytes for shard in shards),
        "problems": problems,
        "made_from": made_from,
        "shards": [asdict(shard) for shard in shards],
    }
    write_json(directory / INDEX_NAME, index)


def write_json(path: Path, contents: object) -> None:
    """Write a JSON file durably: it is complete or absent, even after a power cut."""
    with durable_file(path) as file:
        text = json.dumps(contents, ensure_ascii=False, indent=1)
        file.write(text.encode("utf-8", "backslashreplace"))  # file names may hold lone surrogates
    sync(path.parent)
