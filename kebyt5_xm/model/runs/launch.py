"""What the ranks that were launched together on one machine find out once: the first computes it, the others wait.

It is for what is needed before the ranks can talk to each other, such as which checkpoint is whole.
"""

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

LAUNCH = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "MASTER_PORT")
"""Variables of torchrun and SLURM that the ranks of one launch share."""
KEPT_SECONDS = 24 * 3600.0


def once(name: str, compute: Callable[[], str]) -> str:
    """Return what `compute` gives, computed by one of the ranks of this launch on this machine.

    `name` says what it is. A process that was launched alone computes it.
    """
    if not is_one_of_several():
        return compute()
    folder = _folder()
    if folder is None:
        return compute()
    launch = [str(os.getppid()), *(os.environ.get(variable, "") for variable in LAUNCH), name]
    place = folder / hashlib.blake2b("\0".join(launch).encode(), digest_size=16).hexdigest()
    compute = cache(compute)  # where its value cannot be kept, it is not computed again
    try:
        return _shared(place, compute)
    except OSError:  # a disk that is full, or cannot lock
        return compute()


def _shared(place: Path, compute: Callable[[], str]) -> str:
    with place.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        value, end, _ = file.read().partition("\n")
        if not end:  # the first, or one that was killed while it wrote
            value = compute()
            file.truncate(0)
            file.write(f"{value}\n")
        return value


def is_one_of_several() -> bool:
    """Say whether this process was launched as one rank of several on this machine."""
    return any(
        os.environ.get(name, "1") not in ("", "0", "1")
        for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    )


def _folder() -> Path | None:
    """Return a folder that is this user's alone, without what earlier launches left; None if there can be none."""
    folder = Path(tempfile.gettempdir(), f"kebyt5-xm-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return None
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                old.unlink(missing_ok=True)
    except OSError:
        return None
    return folder
