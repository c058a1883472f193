"""Several tables read as one, such as the shards of a data set."""

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
MAX_FILES = 1_000_000

_DERIVED = re.compile(r"\.(?:index|rows|digest|lengths-[0-9a-f]{16}|\w+-[0-9a-f]{8})$")
_MARKS = (b"ARROW1", b'{"format": "kebyt5-xm', b'{"about": ')
"""First bytes of files derived from manifests (see `derived`)."""


class JoinedRows(Rows):
    """Tables end to end. A row's place is its own table and its line there.

    `reopen` opens the tables in another process: it is pickled and called with `path` and the same files.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Path],
        parts: Sequence[Rows],
        reopen: Callable[[Path, list[Path]], Rows],
    ) -> None:
        super().__init__(path)
        self._files, self._parts, self._reopen = list(files), list(parts), reopen
        self._ends = np.cumsum([len(part) for part in parts])
        fingerprints = " ".join(part.fingerprint for part in parts)
        self.fingerprint = hashlib.blake2b(fingerprints.encode(), digest_size=16).hexdigest()

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
        # The same files, even if more files match the pattern by now.
        return self._reopen, (self.path, [Path(os.path.abspath(file)) for file in self._files])


def expand_pattern(path: Path) -> list[Path] | None:
    """Return the files that a pattern matches, or None if `path` is not a pattern.

    `{000..127}` stands for a range of numbers, both ends included, zero-padded as the first one. `*`, `?` and `[...]`
    match existing files, in the order of their names, but never files derived from manifests. Only the last part of
    the path may be a pattern, because media are relative to its folder; in the name of an existing folder these
    characters are literal. Raises `UserError` if the pattern matches no file.
    """
    if path.exists() or not (_RANGE.search(str(path)) or any(character in str(path) for character in "*?[")):
        return None
    is_pattern = _RANGE.search(str(path.parent)) or any(character in str(path.parent) for character in "*?[")
    if is_pattern and not path.parent.is_dir():
        raise UserError(
            f"found a pattern in the folder of {path}, expected it only in the file name; give one folder"
        )
    names = [path.name]
    while found := _RANGE.search(names[0]):
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MAX_FILES // len(names):
            raise UserError(
                f"found the range {found[0]} in {path}, expected FIRST..LAST in ascending order and at most "
                f"{MAX_FILES:,} files in all; correct it"
            )
        width = len(found[1])
        names = [_RANGE.sub(f"{n:0{width}}", name, count=1) for name in names for n in range(first, last + 1)]
    folder = glob.escape(str(path.parent))
    files = [
        file
        for name in names
        for file in (
            [file for file in map(Path, sorted(glob.glob(f"{folder}/{name}"))) if not is_derived(file)]
            if any(character in name for character in "*?[")
            else [path.parent / name]
        )
    ]
    if not files:
        raise UserError(
            f"found no manifest at {path}, expected files that match the pattern; correct the path"
        )
    return files


def is_derived(file: Path) -> bool:
    """Return whether a file was derived from a manifest (an index, rows, lengths) or is an unfinished such file."""
    if (unfinished := final_name(file.name)) is not None:
        return _DERIVED.search(unfinished) is not None
    found = _DERIVED.search(file.name)
    if found is None or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(64).startswith(_MARKS)
