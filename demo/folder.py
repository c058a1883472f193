"""The demo's folder `runs/demo/`: its paths, emptying it, and the manifests of its data sets."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from kebyt5_xm.errors import UserError

RECIPES = Path(__file__).parents[1] / "configs" / "demo"

FOLDER = Path("runs/demo")
"""Relative to the working folder, like the same paths in the demo's recipes."""
DATA = FOLDER / "data"
EXPORTS = FOLDER / "export"
RESULTS = FOLDER / "results.json"

MARKER = FOLDER / ".made-by-the-demo"
"""Marks the folder as made by the demo, so that the demo may delete it."""


def make_empty() -> None:
    """Make `runs/demo/` empty; deletes the files of an earlier demo.

    Raises UserError, and deletes nothing, if the folder was not made by the demo.
    """
    if FOLDER.is_symlink() or (FOLDER.exists() and not MARKER.is_file() and not _is_empty(FOLDER)):
        raise UserError(
            f"'{FOLDER}' exists and was not made by the demo (it has no {MARKER.name}); move it elsewhere"
        )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.iterdir():
        if path != MARKER:  # it stays to the end, so that a removal that was stopped can be repeated
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    MARKER.write_text("`python -m demo` made this folder and deletes it when it is started again.\n")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


@dataclass(frozen=True)
class Manifests:
    """The two manifests of a data set, JSON lines with media paths relative to their folder."""

    train: Path
    heldout: Path
    train_rows: int
    heldout_rows: int


def write_manifests(folder: Path, train: list[dict], heldout: list[dict]) -> Manifests:
    """Write train.jsonl and heldout.jsonl, ordered by the rows' hashes, so that any part resembles the whole."""
    manifests = Manifests(folder / "train.jsonl", folder / "heldout.jsonl", len(train), len(heldout))
    for path, rows in ((manifests.train, train), (manifests.heldout, heldout)):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_bytes("".join(f"{line}\n" for line in sorted(lines, key=content_hash)).encode())
    return manifests


def content_hash(content: str | bytes) -> int:
    """Return a 64-bit hash of the content, the same on every machine."""
    raw = content.encode() if isinstance(content, str) else content
    return int.from_bytes(hashlib.sha256(raw).digest()[:8])
