"""Files and folders that are whole or absent, whatever ends the process or the power."""

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
ASIDE = ".aside"
"""How the name of a folder ends that another one is about to replace."""


def temporary(path: Path) -> Path:
    """Return the name `.NAME-TOKEN` beside `path` under which something is written until it is whole.

    It is a new one each time: a killed run's last process, or another machine, may be writing the same file.
    """
    return path.with_name(f".{path.name}-{secrets.token_hex(_TOKEN_BYTES)}")


def meant(name: str) -> str | None:
    """Return the name that a `temporary` file of this name was to take; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


@contextlib.contextmanager
def durably(path: Path) -> Iterator[BinaryIO]:
    """Yield a new `temporary` file beside `path`, which is synced and takes its name when the block ends.

    Where the block raises, nothing is left and what was at `path` stays. Call `sync` on the folder too, where the
    name itself must survive a power cut.
    """
    unfinished = temporary(path)
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
    """Yield a new `temporary` folder beside `path`, which replaces what is at `path` when the block ends.

    Where the block raises, nothing is left and what was at `path` stays.
    """
    unfinished = temporary(path)
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
    """Sync `folder`, which lies beside `path`, with all that is in it, and let it take that name.

    No file system renames a folder over another one. What is at `path` is put aside first, where `standing` finds it
    if a kill comes between, and removed then.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))
    aside = path.with_name(f"{temporary(path).name}{ASIDE}")
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


def standing(path: Path) -> Path:
    """Return `path`, or the folder that was put aside for another one which a kill has kept from this name."""
    asides = path.parent.glob(f".{glob.escape(path.name)}-*{ASIDE}")
    return path if path.exists() else next(asides, path)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
