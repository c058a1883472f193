"""The digest beside a checkpoint file, which tells whether its bytes are those that were written."""

import hashlib
from pathlib import Path

DIGEST_SUFFIX = ".digest"
BLOCK_BYTES = 1 << 24


def is_damaged(path: Path) -> bool:
    """Say whether a checkpoint file is not what was written. One without a digest is taken as it is."""
    digests = digests_of(path)
    return bool(digests) and file_digest(path) not in digests


def digest_path(path: Path) -> Path:
    """Return where the digest of a checkpoint lies."""
    return path.with_name(path.name + DIGEST_SUFFIX)


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def digests_of(path: Path) -> list[str]:
    """Return the digests that a checkpoint may have: its own, and where a kill came between, its predecessor's."""
    try:
        return digest_path(path).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
