"""The contract of a manifest's table: any row at once, however long the file."""

import os
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

from kebyt5_xm.data.bad_sample import RowError
from kebyt5_xm.errors import UserError

ROWS_FOR_COLUMNS = 100
# A row holds texts and references, not media. Our own choice, far above any text that would be trained on.
MAX_ROW_BYTES = 64 << 20


class Rows(ABC):
    """A table with random access, made from `path` alone.

    It holds open files, and is pickled as its path: another process opens it again. `fingerprint` is a hash of
    the content, the same wherever and however compressed the file lies. `name` is what messages call it.
    """

    fingerprint: str

    def __init__(self, path: Path):
        self.path = Path(os.path.abspath(path))
        self.name = str(self.path)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """Return row `index`, from 0; raise `RowError` with its line if it cannot be read."""

    @abstractmethod
    def line(self, index: int) -> int:
        """Return where row `index` stands in the manifest, from 1: its line, or in parquet its number."""

    def place(self, index: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of row `index`."""
        return self.name, self.line(index)

    @property
    def root(self) -> Path:
        """The folder that references in rows are relative to, and may not leave: the manifest's own."""
        return self.path.parent

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the first hundred rows; raises `UserError` if none of them can be read."""
        columns: dict[str, None] = {}
        first_error: RowError | None = None
        for index in range(min(ROWS_FOR_COLUMNS, len(self))):
            try:
                columns.update(dict.fromkeys(self.row(index)))
            except RowError as error:
                first_error = first_error or error
        if not columns and first_error is not None:
            raise UserError(f"{first_error}; expected one of the first {ROWS_FOR_COLUMNS} rows to be sound")
        return tuple(columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)
