"""The digest beside a checkpoint file, which tells whether its bytes are those that were written."""

import hashlib
from functools import lru_cache, partial
from pathlib import Path

DIGEST_SUFFIX = ".digest"


def is_damaged(path: Path) -> bool:
    """Say whether a checkpoint file is not what was written. One without a digest is taken as it is."""
    digests = digests_of(path)
    if not digests:
        return False
    status = path.stat()
    return _digest_at(path, status.st_size, status.st_mtime_ns) not in digests


@lru_cache
def _digest_at(path: Path, size: int, time: int) -> str:
    """Return the digest of a file of this size and time: a checkpoint that is chosen, then read, is hashed once."""
    return file_digest(path)


def digest_path(path: Path) -> Path:
    """Return where the digest of a checkpoint lies."""
    return path.with_name(path.name + DIGEST_SUFFIX)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def digests_of(path: Path) -> list[str]:
    """Return the digests that a checkpoint may have: its own, and where a kill came between, its predecessor's."""
    try:
        return digest_path(path).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
