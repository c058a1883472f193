"""Several tables as one, in the order of their names: the shards of a data set."""

import glob
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.durable import final_name
from kebyt5_xm.errors import UserError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_FILES = 1_000_000

_DERIVED = re.compile(r"\.(?:index|rows|digest|lengths-[0-9a-f]{16}|\w+-[0-9a-f]{8})$")
_MARKS = (b"ARROW1", b'{"format": "kebyt5-xm', b'{"about": ')
"""How the files begin that are made from manifests and lie beside them (`derived`)."""


class JoinedRows(Rows):
    """Tables end to end. A row is named by its own table and its line there.

    `open_again` opens them in another process: it is pickled, and called with `path` and the same files.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        parts: Sequence[Rows],
        open_again: Callable[[Path, list[Path]], Rows],
    ) -> None:
        super().__init__(path)
        self._files, self._parts, self._open_again = list(files), list(parts), open_again
        self._ends = np.cumsum([len(part) for part in parts])
        prints = " ".join(part.fingerprint for part in parts)
        self.fingerprint = hashlib.blake2b(prints.encode(), digest_size=16).hexdigest()

    @property
    def root(self) -> Path:
        return self._parts[0].root

    def __len__(self) -> int:
        return int(self._ends[-1])

    def row(self, index: int) -> Mapping[str, Any]:
        part, local = self._locate(index)
        return part.row(local)

    def line(self, index: int) -> int:
        return self.place(index)[1]

    def place(self, index: int) -> tuple[str, int]:
        part, local = self._locate(index)
        return part.place(local)

    def _locate(self, index: int) -> tuple[Rows, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._parts[number], index - int(self._ends[number]) + len(self._parts[number])

    def __reduce__(self) -> tuple[Any, ...]:
        # The same files: others of such names may have come since.
        return self._open_again, (self.path, [Path(os.path.abspath(file)) for file in self._files])


def expanded(path: Path) -> list[Path] | None:
    """Return the files that a pattern names, or None if `path` is none.

    A pattern has `{000..127}` for numbers, both ends included and as wide as the first, or `*`, `?` and `[...]` for
    files that are there, taken in the order of their names. Only the last part of the path may hold one: media are
    relative to its folder; in the name of a folder that is there these characters mean themselves. Files made from
    manifests are never among them. Raises `UserError` if it names no file.
    """
    if path.exists() or not (_RANGE.search(str(path)) or any(character in str(path) for character in "*?[")):
        return None
    is_pattern = _RANGE.search(str(path.parent)) or any(character in str(path.parent) for character in "*?[")
    if is_pattern and not path.parent.is_dir():
        raise UserError(
            f"found a pattern in the folder of {path}, expected one in the name of the files alone"
        )
    names = [path.name]
    while found := _RANGE.search(names[0]):
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MOST_FILES // len(names):
            raise UserError(
                f"found the range {found[0]} in {path}, expected a first and a last number after it"
            )
        width = len(found[1])
        names = [_RANGE.sub(f"{n:0{width}}", name, count=1) for name in names for n in range(first, last + 1)]
    files = [
        file
        for name in names
        for file in (
            [file for file in _matching(path.parent, name) if not is_ours(file)]
            if any(character in name for character in "*?[")
            else [path.parent / name]
        )
    ]
    if not files:
        raise UserError(f"found no manifest at {path}, expected files of such names; correct the path")
    return files


def _matching(folder: Path, name: str) -> list[Path]:
    return [Path(file) for file in sorted(glob.glob(f"{glob.escape(str(folder))}/{name}"))]


def is_ours(file: Path) -> bool:
    """Return whether a file was made from a manifest beside it: an index, rows, lengths, a half-made one of these."""
    if (unfinished := final_name(file.name)) is not None:
        return _DERIVED.search(unfinished) is not None
    found = _DERIVED.search(file.name)
    if found is None or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(64).startswith(_MARKS)
