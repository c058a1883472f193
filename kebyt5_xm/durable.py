"""Files and folders that are complete or absent, even after a kill or a power cut."""

import contextlib
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

_TOKEN_BYTES = 8
_TEMPORARY = re.compile(rf"\.(.+)-[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
ASIDE_SUFFIX = ".aside"
"""Suffix of a folder that is being replaced by another one."""


def temporary_path(path: Path) -> Path:
    """Return a new path `.NAME-TOKEN` in the folder of `path`, to write to until the file is complete.

    The token is random: a process of a killed run, or another machine, may still be writing the same file.
    """
    return path.with_name(f".{path.name}-{secrets.token_hex(_TOKEN_BYTES)}")


def final_name(name: str) -> str | None:
    """Return the final name of a file that `temporary_path` named; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


@contextlib.contextmanager
def durable_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that is synced and renamed to `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays unchanged. Call `sync` on the folder too if
    the new name must survive a power cut.
    """
    unfinished = temporary_path(path)
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            unfinished.unlink()


@contextlib.contextmanager
def durable_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces `path` when the block ends.

    If the block raises, the temporary folder is removed and `path` stays unchanged.
    """
    unfinished = temporary_path(path)
    unfinished.mkdir()
    try:
        yield unfinished
        replace_folder(unfinished, path)
    finally:
        remove(unfinished)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file, 16 bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(folder: Path, path: Path) -> None:
    """Sync `folder` and all its files, then rename it to `path`, which is in the same parent folder.

    No file system renames a folder over another one. So the old folder is first renamed to an aside name, where
    `path_or_aside` finds it if the process is killed in between, and is removed at the end.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))
    aside = path.with_name(f"{temporary_path(path).name}{ASIDE_SUFFIX}")
    if path.exists():
        path.rename(aside)
    try:
        folder.rename(path)
    except BaseException:
        if aside.exists():
            aside.rename(path)
        raise
    sync(path.parent)
    remove(aside)


def path_or_aside(path: Path) -> Path:
    """Return `path` if it exists, else the old folder that an interrupted `replace_folder` put aside, else `path`."""
    asides = path.parent.glob(f".{glob.escape(path.name)}-*{ASIDE_SUFFIX}")
    return path if path.exists() else next(asides, path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all its contents, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
