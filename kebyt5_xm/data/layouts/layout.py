"""The contract of a layout: from published files to rows.

A layout is one generator. Its rows are written once into an Arrow file beside the data, as parquet's are, so that
any of them is there at once; the fingerprint is over the rows.
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
"""The key under which a row may say its line in the file, from 1; its number among the rows unless it does."""
FILE = ":file"
"""The key under which a row may say its file, where it is not the data set's path itself."""
# No prompt can name a column with a colon, so these two are in nobody's way.

GROUP_ROWS = 1024
"""Rows that are held in memory while the Arrow file is written."""

_CANONICAL = json.JSONEncoder(sort_keys=True, default=str)


class Layout(ABC):
    """How a data set is laid out in files. Instances hold plain settings and are sent to data workers."""

    root = "."
    """The folder of media in rows, from that of the data set's path; a layout of media takes it as a setting."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows behind `path`: texts, numbers, lists of them, and media as paths relative to `root`.

        A column that a row lacks, or has None in, is null: an example that needs it is skipped and counted. Raises
        `UserError` for files that are not of this layout, with the line.
        """

    def files(self, path: Path) -> list[Path]:
        """Return the files that `read` reads, in a fixed order; a change in one makes the rows anew."""
        return [path]

    def settings(self) -> dict[str, Any]:
        """Return what decides the rows besides the files, as plain values."""
        return dict(vars(self))

    def open(self, path: Path) -> Rows:
        """Open the data set at `path`; raise `UserError` if it is not there or not of this layout."""
        return LayoutRows(path, self)


class LayoutRows(ArrowRows):
    """The rows that a layout reads, in an Arrow file of their own."""

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
        found = self._value(index, FILE), self._value(index, LINE)
        return found[0] or str(self.path), found[1] or index + 1

    def _value(self, index: int, name: str) -> Any:
        batch = self._batch(index)
        return batch.column(name)[index % BATCH_ROWS].as_py() if name in batch.schema.names else None

    def state(self) -> dict[str, Any]:
        files = self.layout.files(self.path)
        missing = [file for file in files if not file.is_file()]
        if missing or not files:
            raise UserError(
                f"found no {missing[0].name if missing else 'file of the kind'} in "
                f"{missing[0].parent if missing else self.path}, expected the files of "
                f"{type(self.layout).__name__}; correct the path or the settings of `format`"
            )
        folder = self.path.parent
        return {"files": [[os.path.relpath(file, folder), read_file_state(file)] for file in files]}

    def _read_contents(self, state: dict[str, Any]) -> TableContents:
        # The folder of media counts too: a length table made while they were looked for elsewhere must not be used.
        digest = hashlib.blake2b(self.layout.root.encode(), digest_size=16)
        num_rows, schema = 0, pyarrow.schema([])
        for rows in self._read_groups():
            schema = widen_schema(schema, rows, self.path)
            num_rows += len(rows)
            for row in rows:
                kept = {name: value for name, value in row.items() if name not in (LINE, FILE)}
                digest.update(_CANONICAL.encode(kept).encode())
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
