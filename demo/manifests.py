"""The pair of manifests that each of the demo's data sets consists of."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Manifests:
    """JSON lines whose media paths are relative to their folder, and their numbers of rows."""

    train: Path
    heldout: Path
    train_rows: int
    heldout_rows: int


def write_manifests(folder: Path, train: list[dict], heldout: list[dict]) -> Manifests:
    """Write train.jsonl and heldout.jsonl, in the order of the rows' hashes: any part is like the whole."""
    manifests = Manifests(folder / "train.jsonl", folder / "heldout.jsonl", len(train), len(heldout))
    for path, rows in ((manifests.train, train), (manifests.heldout, heldout)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_bytes("".join(f"{line}\n" for line in sorted(lines, key=content_hash)).encode())
    return manifests


def content_hash(content: str | bytes) -> int:
    """Return 64 bits that depend on the content alone, the same on every machine."""
    raw = content.encode() if isinstance(content, str) else content
    return int.from_bytes(hashlib.sha256(raw).digest()[:8])
