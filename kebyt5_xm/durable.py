"""Files that are whole or absent, whatever ends the process or the power."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

TOKEN_BYTES = 8


@contextlib.contextmanager
def durably(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file `.NAME-TOKEN` beside `path`, which is synced and takes its name when the block ends.

    Where the block raises, nothing is left and what was at `path` stays. Call `sync_folder` too, where the name
    itself must survive a power cut.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(TOKEN_BYTES)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
