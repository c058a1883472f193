"""The files in a tar, from its headers: links followed, joined archives read on, and what cannot be read in place."""

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from kebyt5_xm.errors import UserError

KEY = "__key__"
MOST_LINKS = 8
"""Links that a link may lead through; as many symbolic ones as anybody has use for."""


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
