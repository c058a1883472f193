"""Files made from a manifest, such as its index: where they lie, and how one tells that they still fit.

They lie beside the manifest, or in the cache folder where that cannot be written: `KEBYT5_XM_CACHE`, else
`kebyt5-xm` in `XDG_CACHE_HOME`, else in `~/.cache`. They are written under another name, synced and renamed, so a
half-made one is never found. Processes that make the same one at once waste work, but do no harm.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

# The ends of a file where an edit that keeps size and time would most likely show.
END_BYTES = 1 << 16


def state_of(path: Path) -> dict[str, Any]:
    """Return what changes when the file does: its size, time (ns) and a hash of its first and last 64 KiB."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.blake2b(file.read(END_BYTES), digest_size=16)
        file.seek(max(0, status.st_size - END_BYTES))
        digest.update(file.read(END_BYTES))
    return {"size": status.st_size, "time": status.st_mtime_ns, "ends": digest.hexdigest()}


def cache_folder() -> Path:
    """Return the folder for what cannot lie beside what it is made from."""
    return Path(
        os.environ.get("KEBYT5_XM_CACHE")
        or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "kebyt5-xm")
    )


def places(path: Path, suffix: str) -> list[Path]:
    """Return where what is made from `path` may lie, the best place first."""
    key = hashlib.blake2b(os.fsencode(os.path.realpath(path)), digest_size=8).hexdigest()
    return [path.with_name(path.name + suffix), cache_folder() / f"{key}-{path.name}{suffix}"]


def write_derived(path: Path, suffix: str, write: Callable[[BinaryIO], None]) -> Path:
    """Let `write` fill a new file at the first of the `places` that takes it, and return where that is.

    Raises `UserError` with the reasons if none does: no permission, a full disk.
    """
    reasons = []
    for place in places(path, suffix):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with durable_file(place) as file:
                write(file)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
        else:
            return place
    raise UserError(
        f"cannot write what is made from {path} ({'; '.join(reasons)}); expected room in one of these places: "
        "make some, or set KEBYT5_XM_CACHE to a folder that can be written"
    )
