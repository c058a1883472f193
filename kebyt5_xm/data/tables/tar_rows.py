"""WebDataset tar shards, read in place: a row is the run of files with one key, through an index of where they lie.

`cat/0001.jpg`, `cat/0001.txt` and `cat/0001.json` are one row of key `cat/0001`. Its columns are `__key__` and the
files' extensions, and what a file holds is told by the last part of its extension, as in WebDataset: texts (`txt`,
`cls` and the like), JSON, whose values are `json.NAME`, and any other is a file for a slot. The extension begins at
the first dot of a name. Links stand for the file that they name, and joined archives are read on. `X.index` beside
the shard is made from the headers alone: what the files hold is not read, nor part of the fingerprint, but for the
first and last 64 KiB of the shard.
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
from kebyt5_xm.data.tables.arrow_rows import ArrowRows, Contents
from kebyt5_xm.data.tables.json_value import json_value, utf8_text
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES, Row, names_in_first, names_of
from kebyt5_xm.errors import UserError

KEY = "__key__"
TEXT = {"txt", "text", "transcript"}
NUMBER = {"cls", "cls2", "class", "count", "index", "inx", "id"}
JSON = {"json", "jsn"}
"""Extensions that WebDataset decodes as text, as a number (here: as text without the white space), and as JSON."""
SCHEMA = pyarrow.schema(
    [
        (KEY, pyarrow.string()),
        ("names", pyarrow.list_(pyarrow.string())),
        ("starts", pyarrow.list_(pyarrow.uint64())),
        ("sizes", pyarrow.list_(pyarrow.uint64())),
        ("faults", pyarrow.list_(pyarrow.string())),
    ]
)
MOST_LINKS = 8
"""Links that a link may lead through; as many symbolic ones as anybody has use for."""


class TarRows(ArrowRows):
    """The rows of an uncompressed tar shard. Making the index reads its headers once.

    A file is read when its column is used. A row with two files of one extension is refused.
    """

    suffix = ".index"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The extensions in the first hundred rows, and the names in their JSON."""
        return names_in_first(self, _names)

    def row(self, index: int) -> Mapping[str, Any]:
        found = dict(super().row(index))
        names = found["names"]
        if len(set(names)) < len(names):
            raise self.error(index, f"the key {found[KEY]!r} has two files of one extension: {names}")
        return Row(dict.fromkeys((KEY, *names)), partial(self._column, index, found))

    def _column(self, index: int, found: dict[str, Any], name: str) -> Any:
        if name == KEY:
            return found[KEY]
        at = found["names"].index(name)
        span = FileSpan(str(self.path), found["starts"][at], found["sizes"][at], f"{found[KEY]}.{name}")
        if found["faults"][at] is not None:
            raise self.error(index, f"{span.name} {found['faults'][at]}")
        kind = name.rpartition(".")[2]
        if kind not in TEXT | NUMBER | JSON:
            return span
        if span.size > MAX_ROW_BYTES:
            raise self.error(index, f"{span.name} has {span.size} bytes, expected at most {MAX_ROW_BYTES}")
        raw = read_contents(span)
        if kind in JSON:
            return self._object(index, span, raw)
        try:
            text = utf8_text(raw)
        except ValueError as error:
            raise self.error(index, f"{span.name} is {error}") from None
        return text.strip() if kind in NUMBER else text.removesuffix("\n").removesuffix("\r")

    def _object(self, index: int, span: FileSpan, raw: bytes) -> dict[str, Any]:
        try:
            found = json_value(raw)
        except ValueError as error:
            raise self.error(index, f"{span.name} is {error}") from None
        if not isinstance(found, dict):
            raise self.error(index, f"{span.name} is a JSON {type(found).__name__}, expected an object")
        return found

    def _contents(self, state: dict[str, Any]) -> Contents:
        rows = list(rows_of(self.path))
        digest = hashlib.blake2b(f"{state['size']} {state['ends']}".encode(), digest_size=16)
        # A row without faults counts as it did before they were told.
        told = [{k: v for k, v in row.items() if k != "faults" or any(v)} for row in rows]
        digest.update(json.dumps(told).encode())
        table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        return Contents(digest.hexdigest(), len(rows), SCHEMA, lambda: iter(table.to_batches()))


def _names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the extensions, then the names in the JSON among them: no other file is read for it."""
    yield from row
    for name in row:
        if name.rpartition(".")[2] in JSON:
            yield from names_of(row[name], f"{name}.")


@dataclass
class _Member:
    name: str
    start: int = 0
    size: int = 0
    hard_link: str | None = None
    soft_link: str | None = None
    fault: str | None = None


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield `__key__`, and the `names` (extensions), `starts`, `sizes` and `faults` of the files that have it.

    A fault is why a file cannot be read, None where it can. Hidden files and WebDataset's own (`__x__`) are left out.
    Raises `UserError` for what is no whole tar.
    """
    for key, run in groupby(_keyed(_resolved(_members(path))), key=lambda member: member[0]):
        found = list(run)
        yield {
            KEY: key,
            "names": [extension for _, extension, _ in found],
            "starts": [member.start for _, _, member in found],
            "sizes": [member.size for _, _, member in found],
            "faults": [member.fault for _, _, member in found],
        }


def _keyed(members: list[_Member]) -> Iterator[tuple[str, str, _Member]]:
    for member in members:
        folder, _, name = member.name.rpartition("/")
        stem, _, extension = name.partition(".")
        if stem and extension and not (stem.startswith("__") and stem.endswith("__")):
            yield f"{folder}/{stem}" if folder else stem, extension.lower(), member


def _resolved(members: list[_Member]) -> list[_Member]:
    """Give every link the place of the file that it stands for.

    A hard link is the file of that name before it, as tar writes them; a symbolic one is a path from its own folder.
    """
    last = {_normal(member.name): member for member in members}
    before: dict[str, _Member] = {}
    for member in members:
        if member.hard_link is not None:
            _follow(member, before.get(_normal(member.hard_link)), member.hard_link)
        before[_normal(member.name)] = member
    for member in members:
        if member.soft_link is not None:
            target, steps = member, 0
            while target is not None and target.soft_link is not None and steps < MOST_LINKS:
                name = posixpath.join(posixpath.dirname(target.name), target.soft_link)
                target, steps = last.get(_normal(name)), steps + 1
            _follow(member, target if target is None or target.soft_link is None else None, member.soft_link)
    return members


def _follow(member: _Member, target: _Member | None, name: str) -> None:
    if target is None:
        member.fault = (
            f"is a link to '{name}', which is not in the shard; make the shard of the files themselves"
        )
    elif target.soft_link is not None:
        member.soft_link = posixpath.relpath(target.name, posixpath.dirname(member.name) or ".")
    else:
        member.start, member.size, member.fault = target.start, target.size, target.fault


def _normal(name: str) -> str:
    return posixpath.normpath(name)


def _members(path: Path) -> list[_Member]:
    """Return every file and link of all archives that are joined in a file."""
    found: list[_Member] = []
    try:
        with path.open("rb") as file:
            start: int | None = 0
            while start is not None:
                file.seek(start)
                start = _archive(file, found)
    except (tarfile.TarError, EOFError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"cannot read {path} to its end ({cause}); expected an uncompressed tar file: get it again, or unpack "
            "its compression"
        ) from error
    return found


def _archive(file: BinaryIO, found: list[_Member]) -> int | None:
    """Add the members of the archive that begins here; return where another one begins behind it, if one does."""
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined] # else every header is kept
            name = _text(member.name)
            if member.islnk():
                found.append(_Member(name, hard_link=_text(member.linkname)))
            elif member.issym():
                found.append(_Member(name, soft_link=_text(member.linkname)))
            elif member.isreg():
                sparse = "is stored with its holes left out (tar -S); make the shard without -S"
                fault = sparse if member.issparse() else None
                found.append(_Member(name, member.offset_data, member.size, fault=fault))
        # tarfile takes a file that was cut at or in a header for its end.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("there is no end mark: it is truncated")
        position = archive.offset + tarfile.BLOCKSIZE
    while block := file.read(tarfile.RECORDSIZE):
        if block.strip(b"\0"):
            offset = len(block) - len(block.lstrip(b"\0"))
            return position + offset // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        position += len(block)
    return None


def _text(name: str) -> str:
    """Return a member's name with what is not UTF-8 in it spelled out, so that names stay different."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
