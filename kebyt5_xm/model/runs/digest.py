"""Digests of a checkpoint, which tell whether its bytes are those that were written.

Of a file the digest lies beside it (NAME.digest); of a folder those of its files lie within (digests.json).
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from kebyt5_xm.durable import durable_file, file_digest
from kebyt5_xm.model.runs.launch import once

DIGEST_SUFFIX = ".digest"
FOLDER_DIGESTS = "digests.json"
THREADS = 8
"""That hash at once: a file system gives more to several readers, and hashing leaves Python's lock."""


def is_damaged(path: Path) -> bool:
    """Say whether a checkpoint, a file or a folder, is not what was written; without digests it is taken as it is."""
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
    """List the digests of all files of a folder in it."""
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

    A checkpoint that is chosen, then read, is hashed once, and by one of the ranks on a machine.
    """
    return once(f"digest {path.absolute()} {size} {time}", lambda: file_digest(path))


def digest_path(path: Path) -> Path:
    """Return where the digest of a checkpoint file lies."""
    return path.with_name(path.name + DIGEST_SUFFIX)


def digests_of(path: Path) -> list[str]:
    """Return the digests that a checkpoint may have: its own, and where a kill came between, its predecessor's."""
    try:
        return digest_path(path).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
