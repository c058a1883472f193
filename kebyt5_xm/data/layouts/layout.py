"""The contract of a layout: from published files to rows.

A layout is one generator. Its rows are written once into an Arrow file beside the data, as parquet's are, so that
any of them is there at once; the fingerprint is over the rows.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow

from kebyt5_xm.data.arrow_rows import ArrowRows, Contents
from kebyt5_xm.data.derived import state_of
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.errors import UserError

Row = dict[str, Any]

ROWS_AT_ONCE = 1024
"""Rows that are held in memory while the Arrow file is written."""


class Layout(ABC):
    """How a data set is laid out in files. Instances hold plain settings and are sent to data workers."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Row]:
        """Yield the rows behind `path`: texts, numbers, lists, and media as paths relative to `path`'s folder.

        All rows have the same columns. Raises `UserError` for files that are not of this layout, with the line.
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

    def __init__(self, path: Path, layout: Layout):
        self.layout = layout
        kind = type(layout)
        settings = json.dumps(layout.settings(), sort_keys=True, ensure_ascii=False)
        text = f"{kind.__module__}.{kind.__qualname__} {settings}"
        self.suffix = f".{kind.__name__.lower()}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
        if not path.exists():
            raise UserError(f"found nothing at {path}, expected {kind.__name__} files; correct the path")
        super().__init__(path)

    def state(self) -> dict[str, Any]:
        files = self.layout.files(self.path)
        if not files:
            raise UserError(
                f"found no {type(self.layout).__name__} files in {self.path}, expected at least one"
            )
        return {"files": [[str(file.name), state_of(file)] for file in files]}

    def _contents(self, state: dict[str, Any]) -> Contents:
        digest, num_rows, schema = hashlib.blake2b(digest_size=16), 0, None
        for batch in self._batches(None):
            schema = batch.schema if schema is None else _united(schema, batch.schema, self.path)
            num_rows += batch.num_rows
            for row in batch.to_pylist():
                digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
        if schema is None:
            raise UserError(f"found no rows in {self.path}, expected at least one")
        return Contents(digest.hexdigest(), num_rows, schema, lambda: self._batches(schema))

    def _batches(self, schema: pyarrow.Schema | None) -> Iterator[pyarrow.RecordBatch]:
        rows: list[Row] = []
        for row in self.layout.read(self.path):
            rows.append(row)
            if len(rows) == ROWS_AT_ONCE:
                yield self._batch(rows, schema)
                rows = []
        if rows:
            yield self._batch(rows, schema)

    def _batch(self, rows: list[Row], schema: pyarrow.Schema | None) -> pyarrow.RecordBatch:
        try:
            return pyarrow.RecordBatch.from_pylist(rows, schema=schema)
        except (pyarrow.ArrowException, UnicodeEncodeError) as error:
            raise UserError(
                f"{self.path} has a column of values of different kinds ({error}); expected one kind in each"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.layout)


def _united(first: pyarrow.Schema, second: pyarrow.Schema, path: Path) -> pyarrow.Schema:
    try:
        return pyarrow.unify_schemas([first, second], promote_options="permissive")
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(
            f"{path} has a column of values of different kinds ({error}); expected one kind"
        ) from error
