"""WebDataset tar shards, read in place: a row is the run of files with one key, through an index of where they lie.

`cat/0001.jpg`, `cat/0001.txt` and `cat/0001.json` are one row of key `cat/0001`. Its columns are `__key__` and the
files' extensions: `txt`, `text` and `cls` hold text, `json` becomes a column `json.NAME` for every name of its
object, and any other is a file for a slot. The extension begins at the first dot of a name, as in WebDataset.
`X.index` beside the shard is made from the headers alone: what the files hold is not read, nor part of the
fingerprint, but for the first and last 64 KiB of the shard.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow

from kebyt5_xm.data.arrow_rows import ArrowRows, Contents
from kebyt5_xm.data.bad_sample import RowError
from kebyt5_xm.data.reference import Span, contents
from kebyt5_xm.data.rows import MAX_ROW_BYTES
from kebyt5_xm.errors import UserError

TEXT = ("txt", "text", "cls")
JSON = "json"
KEY = "__key__"
SCHEMA = pyarrow.schema(
    [
        (KEY, pyarrow.string()),
        ("names", pyarrow.list_(pyarrow.string())),
        ("starts", pyarrow.list_(pyarrow.uint64())),
        ("sizes", pyarrow.list_(pyarrow.uint64())),
    ]
)


class TarRows(ArrowRows):
    """The rows of an uncompressed tar shard. Making the index reads its headers once."""

    suffix = ".index"

    def row(self, index: int) -> dict[str, Any]:
        found = super().row(index)
        if len(set(found["names"])) < len(found["names"]):
            raise self._error(
                index, f"the key {found[KEY]!r} has two files of one extension: {found['names']}"
            )
        row: dict[str, Any] = {KEY: found[KEY]}
        for name, start, size in zip(found["names"], found["starts"], found["sizes"], strict=True):
            span = Span(str(self.path), start, size, f"{found[KEY]}.{name}")
            if name in TEXT:
                row[name] = self._text(index, span)
            elif name == JSON:
                row.update(self._object(index, span))
            else:
                row[name] = span
        return row

    def _text(self, index: int, span: Span) -> str:
        if span.size > MAX_ROW_BYTES:
            raise self._error(index, f"{span.name} has {span.size} bytes, expected at most {MAX_ROW_BYTES}")
        try:
            return contents(span).decode()
        except UnicodeDecodeError as error:
            raise self._error(
                index, f"{span.name} is not UTF-8: {error.reason} at byte {error.start}"
            ) from None

    def _object(self, index: int, span: Span) -> dict[str, Any]:
        text = self._text(index, span)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._error(index, f"{span.name} is not JSON: {type(error).__name__}: {error}") from None
        if not isinstance(found, dict):
            raise self._error(index, f"{span.name} is a JSON {type(found).__name__}, expected an object")
        return {f"{JSON}.{name}": value for name, value in found.items()}

    def _error(self, index: int, cause: str) -> RowError:
        return RowError(str(self.path), self.line(index), cause)

    def _contents(self, state: dict[str, Any]) -> Contents:
        rows = list(_rows(self.path))
        digest = hashlib.blake2b(f"{state['size']} {state['ends']}".encode(), digest_size=16)
        digest.update(json.dumps(rows).encode())
        table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        return Contents(digest.hexdigest(), len(rows), SCHEMA, lambda: iter(table.to_batches()))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for key, members in groupby(_members(path), key=lambda member: member[0]):
        _, names, starts, sizes = zip(*members, strict=True)
        yield {KEY: key, "names": names, "starts": starts, "sizes": sizes}


def _members(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """Yield key, extension, first byte and size of every file; hidden ones and WebDataset's own (`__x__`) not."""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members.clear()  # type: ignore[attr-defined] # else every header is kept
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                if (
                    member.isreg()
                    and stem
                    and extension
                    and not (stem.startswith("__") and stem.endswith("__"))
                ):
                    key = f"{folder}/{stem}" if folder else stem
                    yield key, extension.lower(), member.offset_data, member.size
            # tarfile takes a file that was cut at or in a header for its end.
            with path.open("rb") as file:
                file.seek(archive.offset)
                if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise tarfile.ReadError("there is no end mark: it is truncated")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(
            f"cannot read {path} to its end ({error}); expected an uncompressed tar file: get it again, or unpack "
            "its compression"
        ) from error
