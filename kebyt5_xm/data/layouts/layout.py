"""The interface of a layout, which turns published files into rows.

A layout is one generator. Its rows are written once to an Arrow file next to the data for random access, as for
parquet. The fingerprint is a hash of the rows.
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow

from kebyt5_xm.data.layouts.columns import make_batch, widen_schema
from kebyt5_xm.data.tables.arrow_rows import BATCH_ROWS, ArrowRows, TableContents
from kebyt5_xm.data.tables.derived import read_file_state
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError

Row = dict[str, Any]

LINE = ":line"
"""Key of a row's line in its file, from 1. Without it, the row's number is used."""
FILE = ":file"
"""Key of a row's file, if it is not the data set's path."""
# No prompt can name a column with a colon, so these keys hide no column.

GROUP_ROWS = 1024
"""Rows held in memory while the Arrow file is written."""

_CANONICAL = json.JSONEncoder(sort_keys=True, default=str)


class Layout(ABC):
    """The file layout of a data set. Instances hold plain settings and are pickled to data workers."""

    root = "."
    """The folder that media paths are relative to, given relative to the folder of the data set's path."""

    offset: str | None = None
    duration: str | None = None
    """The columns of the start and the length, in seconds, of the excerpt that a row takes of its recording."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows of `path`: texts, numbers, lists of these, and media as paths relative to `root`.

        A column that is missing or None in a row is null; an example that needs it is skipped and counted. Raises
        `UserError` with the line if a file does not have this layout.
        """

    def files(self, path: Path) -> list[Path]:
        """Return the files that `read` reads, in a fixed order. If one changes, the rows are read again."""
        return [path]

    def settings(self) -> dict[str, Any]:
        """Return the settings that determine the rows, as plain values."""
        return dict(vars(self))

    def open(self, path: Path) -> Rows:
        """Open the data set at `path`; raise `UserError` if it is missing or does not have this layout."""
        return LayoutRows(path, self)


class LayoutRows(ArrowRows):
    """The rows of a layout, stored in an Arrow file."""

    hidden = (LINE, FILE)

    def __init__(self, path: Path, layout: Layout):
        self.layout = layout
        kind = type(layout)
        settings = json.dumps(layout.settings(), sort_keys=True, ensure_ascii=False)
        text = f"{kind.__module__}.{kind.__qualname__} {settings}"
        self.suffix = f".{kind.__name__.lower()}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
        if not path.exists():
            raise UserError(f"found nothing at {path}, expected {kind.__name__} files; correct the path")
        super().__init__(path)

    @property
    def root(self) -> Path:
        return Path(os.path.normpath(self.path.parent / self.layout.root))

    def line(self, index: int) -> int:
        return self.place(index)[1]

    def place(self, index: int) -> tuple[str, int]:
        found = self._read_value(index, FILE), self._read_value(index, LINE)
        return found[0] or str(self.path), found[1] or index + 1

    def _read_value(self, index: int, name: str) -> Any:
        batch = self._read_batch(index)
        return batch.column(name)[index % BATCH_ROWS].as_py() if name in batch.schema.names else None

    def state(self) -> dict[str, Any]:
        files = self.layout.files(self.path)
        missing = [file for file in files if not file.is_file()]
        if missing or not files:
            raise UserError(
                f"found no {missing[0].name if missing else 'matching file'} in "
                f"{missing[0].parent if missing else self.path}, expected the files of "
                f"{type(self.layout).__name__}; correct the path or the settings of `format`"
            )
        folder = self.path.parent
        return {"files": [[os.path.relpath(file, folder), read_file_state(file)] for file in files]}

    def _read_contents(self, state: dict[str, Any]) -> TableContents:
        # The media folder is hashed too: a length table built for another folder must not be used.
        digest = hashlib.blake2b(self.layout.root.encode(), digest_size=16)
        num_rows, schema = 0, pyarrow.schema([])
        for rows in self._read_groups():
            schema = widen_schema(schema, rows, self.path)
            num_rows += len(rows)
            for row in rows:
                values = {name: value for name, value in row.items() if name not in (LINE, FILE)}
                digest.update(_CANONICAL.encode(values).encode())
        if not num_rows:
            raise UserError(f"found no rows in {self.path}, expected at least one")
        return TableContents(
            digest.hexdigest(),
            num_rows,
            schema,
            lambda: (make_batch(rows, schema) for rows in self._read_groups()),
        )

    def _read_groups(self) -> Iterator[list[Row]]:
        rows = iter(self.layout.read(self.path))
        return iter(lambda: list(islice(rows, GROUP_ROWS)), [])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.layout)
