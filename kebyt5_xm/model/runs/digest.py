"""Digests of checkpoints, which reveal whether their bytes have changed.

A file's digest is in a second file, NAME.digest; the digests of a folder's files are in its digests.json.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from kebyt5_xm.durable import durable_file, file_digest
from kebyt5_xm.model.runs.launch import once_per_machine

DIGEST_SUFFIX = ".digest"
FOLDER_DIGESTS = "digests.json"
THREADS = 8
"""Threads that hash: file systems are faster with several readers, and hashing releases Python's lock."""


def is_damaged(path: Path) -> bool:
    """Return whether the bytes of a checkpoint, a file or a folder, have changed; False if it has no digests."""
    if path.is_dir():
        return _is_folder_damaged(path)
    digests = digests_of(path)
    return bool(digests) and _digest(path) not in digests


def _is_folder_damaged(path: Path) -> bool:
    try:
        expected = json.loads((path / FOLDER_DIGESTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    files = [path / name for name in expected]
    if not all(file.is_file() for file in files):
        return True
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(_digest, files)) != list(expected.values())


def write_folder_digests(path: Path) -> None:
    """Write the digests of all files of a folder into its digests.json."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    with ThreadPoolExecutor(THREADS) as pool:
        digests = dict(
            zip((str(file.relative_to(path)) for file in files), pool.map(file_digest, files), strict=True)
        )
    with durable_file(path / FOLDER_DIGESTS) as file:
        file.write(json.dumps(digests, indent=0).encode())


def _digest(path: Path) -> str:
    status = path.stat()
    return _digest_at(path, status.st_size, status.st_mtime_ns)


@cache
def _digest_at(path: Path, size: int, time: int) -> str:
    """Return the digest of a file of this size and time.

    A checkpoint is hashed once, although it is checked when it is chosen and when it is read, and on each machine by
    one rank.
    """
    return once_per_machine(f"digest {path.absolute()} {size} {time}", lambda: file_digest(path))


def digest_path(path: Path) -> Path:
    """Return the path of a checkpoint file's digest."""
    return path.with_name(path.name + DIGEST_SUFFIX)


def digests_of(path: Path) -> list[str]:
    """Return the valid digests of a checkpoint file: its own, and after a kill also that of the file it replaces."""
    try:
        return digest_path(path).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
