"""Derived files, such as a manifest's index: where they are stored and how a stale one is detected.

A derived file is stored next to its manifest, or in the cache folder if that place is not writable. The cache folder
is `KEBYT5_XM_CACHE`, else `kebyt5-xm` in `XDG_CACHE_HOME`, else in `~/.cache`. A file is written under a temporary
name, synced and renamed, so no reader sees a partial one. Processes that write the same file at once waste work but
do no harm.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

# Bytes hashed at each end of a file. An edit that keeps size and time most likely shows there.
END_BYTES = 1 << 16


def read_file_state(path: Path) -> dict[str, Any]:
    """Return a state that changes with the file: size, time (ns) and a hash of the first and last 64 KiB."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.blake2b(file.read(END_BYTES), digest_size=16)
        file.seek(max(0, status.st_size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return {"size": status.st_size, "time": status.st_mtime_ns, "ends": digest.hexdigest()}


def cache_folder() -> Path:
    """Return the folder for derived files that cannot be stored next to their manifest."""
    return Path(
        os.environ.get("KEBYT5_XM_CACHE")
        or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kebyt5-xm")
    )


def list_derived_paths(path: Path, suffix: str) -> list[Path]:
    """Return the paths where a file derived from `path` may be stored, the preferred one first."""
    key = hashlib.blake2b(os.fsencode(os.path.realpath(path)), digest_size=8).hexdigest()
    return [path.with_name(path.name + suffix), cache_folder() / f"{key}-{path.name}{suffix}"]


def write_derived(path: Path, suffix: str, write: Callable[[BinaryIO], None]) -> Path:
    """Let `write` fill a new file at the first writable path of `list_derived_paths`; return that path.

    Raises `UserError` with the reasons if no path is writable (no permission, a full disk).
    """
    reasons = []
    for place in list_derived_paths(path, suffix):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with durable_file(place) as file:
                write(file)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
        else:
            return place
    raise UserError(
        f"cannot write the {suffix} file of {path} ({'; '.join(reasons)}), expected one of these paths to be "
        "writable: free some space, or set KEBYT5_XM_CACHE to a writable folder"
    )
