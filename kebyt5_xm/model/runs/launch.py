"""Computes a value once for all ranks of a launch on one machine: the first computes it, the others wait.

For values that are needed before the ranks can communicate, such as the digest of a checkpoint.
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

LAUNCH_VARIABLES = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "SLURM_STEP_ID", "MASTER_PORT")
"""Environment variables of torchrun and SLURM with the same value in all ranks of a launch."""
MAX_AGE = 24 * 3600.0
"""Seconds after which files of earlier launches are deleted."""


def once_per_machine(name: str, compute: Callable[[], str]) -> str:
    """Return the result of `compute`, called by one of the ranks of this launch on this machine.

    `name` identifies the value. A process that was launched alone calls `compute` itself.
    """
    if not is_one_of_several():
        return compute()
    folder = _folder()
    if folder is None:
        return compute()
    launch = [str(os.getppid()), *(os.environ.get(variable, "") for variable in LAUNCH_VARIABLES), name]
    path = folder / hashlib.blake2b("\0".join(launch).encode(), digest_size=16).hexdigest()
    compute = cache(compute)  # not computed twice if its value cannot be written
    try:
        return _read_or_compute(path, compute)
    except OSError:  # a disk that is full, or cannot lock
        return compute()


def _read_or_compute(path: Path, compute: Callable[[], str]) -> str:
    with path.open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        value, end, _ = file.read().partition("\n")
        if not end:  # this rank is the first, or the first was killed while it wrote
            value = compute()
            file.truncate(0)
            file.write(f"{value}\n")
        return value


def is_one_of_several() -> bool:
    """Return whether this process was launched as one of several ranks on this machine."""
    return any(
        os.environ.get(name, "1") not in ("", "0", "1")
        for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE")
    )


def _folder() -> Path | None:
    """Return a folder that only this user can access, cleared of old files; None if there cannot be one."""
    folder = Path(tempfile.gettempdir(), f"kebyt5-xm-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            return None
        for old in folder.iterdir():
            if time.time() - old.stat().st_mtime > MAX_AGE:
                old.unlink(missing_ok=True)
    except OSError:
        return None
    return folder
