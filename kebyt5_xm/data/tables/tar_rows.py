"""WebDataset tar shards, read in place through an index of file offsets. A row is a run of files with the same key.

`cat/0001.jpg`, `cat/0001.txt` and `cat/0001.json` are one row with the key `cat/0001`. Its columns are `__key__` and
the extensions of the files. An extension begins at the first dot of the name, and its last part gives the type, as in
WebDataset: text (`txt`, `cls` and similar), JSON with the columns `json.NAME`, and anything else is a media file.

Links are resolved within the shard, and concatenated archives are read to the last one. The index (`X.index`) is
built from the tar headers. The fingerprint covers the headers and the first and last 64 KiB of the shard, not all
contents.
"""

import hashlib
import json
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow

from kebyt5_xm.data.media.reference import FileSpan, read_contents
from kebyt5_xm.data.tables.arrow_rows import ArrowRows, TableContents
from kebyt5_xm.data.tables.json_value import decode_utf8, parse_json
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES, Row, list_first_names, list_names
from kebyt5_xm.errors import UserError

KEY = "__key__"
TEXT_EXTENSIONS = {"txt", "text", "transcript"}
NUMBER_EXTENSIONS = {"cls", "cls2", "class", "count", "index", "inx", "id"}
JSON_EXTENSIONS = {"json", "jsn"}
"""Extensions that WebDataset decodes as text, as a number (here: text without surrounding spaces), and as JSON."""
SCHEMA = pyarrow.schema(
    [
        (KEY, pyarrow.string()),
        ("names", pyarrow.list_(pyarrow.string())),
        ("starts", pyarrow.list_(pyarrow.uint64())),
        ("sizes", pyarrow.list_(pyarrow.uint64())),
        ("faults", pyarrow.list_(pyarrow.string())),
    ]
)
MAX_LINKS = 8
"""Most links in a chain that is followed. Our own choice."""


class TarRows(ArrowRows):
    """The rows of an uncompressed tar shard. Making the index reads the headers once.

    A file is read when its column is used. A row with two files of the same extension is refused.
    """

    suffix = ".index"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The extensions in the first hundred rows, and the keys of their JSON objects."""
        return list_first_names(self, _iterate_names)

    def row(self, index: int) -> Mapping[str, Any]:
        found = dict(super().row(index))
        names = found["names"]
        if len(set(names)) < len(names):
            raise self.error(
                index,
                f"the key {found[KEY]!r} has two files with the same extension: {names}, expected one; rename one",
            )
        return Row(dict.fromkeys((KEY, *names)), partial(self._read_column, index, found))

    def _read_column(self, index: int, found: dict[str, Any], name: str) -> Any:
        if name == KEY:
            return found[KEY]
        at = found["names"].index(name)
        span = FileSpan(str(self.path), found["starts"][at], found["sizes"][at], f"{found[KEY]}.{name}")
        if found["faults"][at] is not None:
            raise self.error(index, f"{span.name} {found['faults'][at]}")
        kind = name.rpartition(".")[2]
        if kind not in TEXT_EXTENSIONS | NUMBER_EXTENSIONS | JSON_EXTENSIONS:
            return span
        if span.size > MAX_ROW_BYTES:
            raise self.error(index, f"{span.name} has {span.size} bytes, expected at most {MAX_ROW_BYTES}")
        raw = read_contents(span)
        if kind in JSON_EXTENSIONS:
            return self._parse_object(index, span, raw)
        try:
            text = decode_utf8(raw)
        except ValueError as error:
            raise self.error(index, f"{span.name} is {error}") from None
        return text.strip() if kind in NUMBER_EXTENSIONS else text.removesuffix("\n").removesuffix("\r")

    def _parse_object(self, index: int, span: FileSpan, raw: bytes) -> dict[str, Any]:
        try:
            found = parse_json(raw)
        except ValueError as error:
            raise self.error(index, f"{span.name} is {error}") from None
        if not isinstance(found, dict):
            raise self.error(index, f"{span.name} is a JSON {type(found).__name__}, expected an object")
        return found

    def _read_contents(self, state: dict[str, Any]) -> TableContents:
        rows = list(list_rows(self.path))
        digest = hashlib.blake2b(f"{state['size']} {state['ends']}".encode(), digest_size=16)
        # Earlier versions had no faults; leaving empty ones out keeps their fingerprints.
        hashed = [{k: v for k, v in row.items() if k != "faults" or any(v)} for row in rows]
        digest.update(json.dumps(hashed).encode())
        table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        return TableContents(digest.hexdigest(), len(rows), SCHEMA, lambda: iter(table.to_batches()))


def _iterate_names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the extensions, then the dotted keys of the JSON files. No other file is read."""
    yield from row
    for name in row:
        if name.rpartition(".")[2] in JSON_EXTENSIONS:
            yield from list_names(row[name], f"{name}.")


@dataclass
class _Member:
    name: str
    start: int = 0
    size: int = 0
    hard_link: str | None = None
    soft_link: str | None = None
    fault: str | None = None


def list_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield for each key `__key__` and the `names` (extensions), `starts`, `sizes` and `faults` of its files.

    A fault says why a file cannot be read, or is None. Hidden files and WebDataset's own (`__x__`) are left out.
    Raises `UserError` if the file is not a complete tar.
    """
    for key, run in groupby(_iterate_keys(_resolve_links(_read_members(path))), key=lambda member: member[0]):
        found = list(run)
        yield {
            KEY: key,
            "names": [extension for _, extension, _ in found],
            "starts": [member.start for _, _, member in found],
            "sizes": [member.size for _, _, member in found],
            "faults": [member.fault for _, _, member in found],
        }


def _iterate_keys(members: list[_Member]) -> Iterator[tuple[str, str, _Member]]:
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if stem and extension and not (stem.startswith("__") and stem.endswith("__")):
            yield f"{folder}/{stem}" if folder else stem, extension.lower(), member


def _resolve_links(members: list[_Member]) -> list[_Member]:
    """Give every link the start and size of its target.

    A hard link points to the last earlier file of that name; a symbolic link is a path relative to its own folder.
    """
    last = {posixpath.normpath(member.name): member for member in members}
    before: dict[str, _Member] = {}
    for member in members:
        if member.hard_link is not None:
            _resolve_link(member, before.get(posixpath.normpath(member.hard_link)), member.hard_link)
        before[posixpath.normpath(member.name)] = member
    for member in members:
        if member.soft_link is not None:
            target, steps = member, 0
            while target is not None and target.soft_link is not None and steps < MAX_LINKS:
                name = posixpath.join(posixpath.dirname(target.name), target.soft_link)
                target, steps = last.get(posixpath.normpath(name)), steps + 1
            _resolve_link(
                member, target if target is None or target.soft_link is None else None, member.soft_link
            )
    return members


def _resolve_link(member: _Member, target: _Member | None, name: str) -> None:
    if target is None:
        member.fault = (
            f"is a link to '{name}', which is not in the shard; write the files themselves to the shard"
        )
    elif target.soft_link is not None:
        member.soft_link = posixpath.relpath(target.name, posixpath.dirname(member.name) or ".")
    else:
        member.start, member.size, member.fault = target.start, target.size, target.fault


def _read_members(path: Path) -> list[_Member]:
    """Return every file and link of all archives concatenated in a file."""
    found: list[_Member] = []
    try:
        with path.open("rb") as file:
            start: int | None = 0
            while start is not None:
                file.seek(start)
                start = _read_archive(file, found)
    except (tarfile.TarError, EOFError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"cannot read {path} to its end ({cause}); expected an uncompressed tar file: get it again, or unpack "
            "its compression first"
        ) from error
    return found


def _read_archive(file: BinaryIO, found: list[_Member]) -> int | None:
    """Add the members of the archive that begins here; return the start of the next archive, or None."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined] # else every header stays in memory
            name = _to_utf8(member.name)
            if member.islnk():
                found.append(_Member(name, hard_link=_to_utf8(member.linkname)))
            elif member.issym():
                found.append(_Member(name, soft_link=_to_utf8(member.linkname)))
            elif member.isreg():
                sparse = "is stored as a sparse file (tar -S); write the shard without -S"
                fault = sparse if member.issparse() else None
                found.append(_Member(name, member.offset_data, member.size, fault=fault))
        # tarfile treats a file that is cut at or in a header as complete.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("the end mark is missing: it is truncated")
        position = archive.offset + tarfile.BLOCKSIZE
    while block := file.read(tarfile.RECORDSIZE):
        if block.strip(b"\0"):
            offset = len(block) - len(block.lstrip(b"\0"))
            return position + offset // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        position += len(block)
    return None


def _to_utf8(name: str) -> str:
    """Return a member's name with invalid UTF-8 as escapes, so that different names stay different."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
