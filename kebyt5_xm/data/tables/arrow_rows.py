"""Rows kept in an Arrow file beside the manifest: memory-mapped, so that any row is there at once, none in memory."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.ipc

from kebyt5_xm.data.media.bad_sample import RowError
from kebyt5_xm.data.media.open_files import LazyFile
from kebyt5_xm.data.tables.arrow_values import column_names, value_of
from kebyt5_xm.data.tables.derived import places, state_of, write_derived
from kebyt5_xm.data.tables.rows import Row, Rows
from kebyt5_xm.errors import UserError

VERSION = 2
METADATA_KEY = b"kebyt5-xm rows"
# Small enough for rows that hold whole images, large enough that ten million rows are 80,000 batches.
BATCH_ROWS = 128

Opened = tuple[pyarrow.ipc.RecordBatchFileReader, dict[str, Any]]
"""An Arrow file, and what it says about itself."""


def cell(column: pyarrow.Array, at: int, name: str, place: tuple[str, int]) -> Any:
    """Return a value of the column `name`; raise `RowError` at `place` for what Python cannot hold."""
    try:
        return value_of(column[at])
    except UnicodeDecodeError as error:
        raise RowError(
            *place, f"column '{name}' is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except (ValueError, ArithmeticError, KeyError, pyarrow.ArrowException) as error:  # a date past 9999, say
        raise RowError(*place, f"column '{name}' ({column.type}) cannot be read: {error}") from None


class Contents(NamedTuple):
    """What the Arrow file is made of. `batches` reads the rows anew at every call; they may be of any size."""

    digest: str
    num_rows: int
    schema: pyarrow.Schema
    batches: Callable[[], Iterator[pyarrow.RecordBatch]]


class ArrowRows(Rows):
    """The base of tables that are read through an Arrow file, which is made the first time and after a change.

    Raises `UserError` if the manifest cannot be read to its end, or the Arrow file can lie nowhere.
    """

    suffix: str
    hidden: tuple[str, ...] = ()
    """Columns that are no part of a row."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._state = self.state()
        if _find(self.path, self.suffix, self._state) is None:
            self._make(self._state)
        self._opened = LazyFile(partial(_open, self.path, self.suffix, self._state))
        reader, about = self._opened.get()
        self._length: int = about["rows"]
        self._names: dict[str, int] = {
            name: reader.schema.get_field_index(name)
            for name in reader.schema.names
            if name not in self.hidden
        }
        self.fingerprint = about["digest"]

    def state(self) -> dict[str, Any]:
        """Return what changes when the files do; raise `UserError` if there are none."""
        return state_of(self.path)

    @abstractmethod
    def _contents(self, state: dict[str, Any]) -> Contents:
        """Read the manifest, whose file is in this state; raise `UserError` if it cannot be read."""

    def __len__(self) -> int:
        return self._length

    @cached_property
    def columns(self) -> tuple[str, ...]:
        schema = self._opened.get()[0].schema
        return column_names(field for field in schema if field.name not in self.hidden)

    def row(self, index: int) -> Mapping[str, Any]:
        batch = self._batch(index)
        return Row(self._names, lambda name: self._cell(batch, index, name))

    def _batch(self, index: int) -> pyarrow.RecordBatch:
        """Return the batch that holds a row; raise `RowError` if it cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            return self._opened.get()[0].get_batch(index // BATCH_ROWS)
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            # Not `self.error`: a layout's place is in the batch itself.
            raise RowError(self.name, index + 1, f"{type(error).__name__}: {error}") from None

    def _cell(self, batch: pyarrow.RecordBatch, index: int, name: str) -> Any:
        number = self._names[name]
        if number < 0:
            raise self.error(index, f"there are two columns '{name}', expected one: rename one")
        return cell(batch.column(number), index % BATCH_ROWS, name, self.place(index))

    def _make(self, state: dict[str, Any]) -> None:
        digest, num_rows, schema, batches = self._contents(state)
        about = {"version": VERSION, "state": state, "digest": digest, "rows": num_rows}
        schema = schema.with_metadata({METADATA_KEY: json.dumps(about)})

        def write(file: BinaryIO) -> None:
            written = 0
            with pyarrow.ipc.new_file(file, schema) as writer:
                for batch in _equal_batches(batches(), schema):
                    writer.write_batch(batch)
                    written += batch.num_rows
            if written != num_rows:
                raise UserError(
                    f"{self.path} says that it has {num_rows} rows, found {written}; it is damaged: get it again"
                )

        write_derived(self.path, self.suffix, write)


def _equal_batches(
    batches: Iterator[pyarrow.RecordBatch], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of exactly `BATCH_ROWS` rows, the last one excepted, whatever the groups are."""
    left: list[pyarrow.RecordBatch] = []
    num_left = 0
    for batch in batches:
        left.append(pyarrow.RecordBatch.from_arrays(batch.columns, schema=schema))
        num_left += batch.num_rows
        if num_left >= BATCH_ROWS:
            table = pyarrow.Table.from_batches(left, schema)
            whole = num_left - num_left % BATCH_ROWS
            for start in range(0, whole, BATCH_ROWS):
                yield from table.slice(start, BATCH_ROWS).combine_chunks().to_batches()
            left, num_left = table.slice(whole).to_batches(), num_left - whole
    if num_left:
        yield from pyarrow.Table.from_batches(left, schema).combine_chunks().to_batches()


def _find(path: Path, suffix: str, state: dict[str, Any]) -> Opened | None:
    for place in places(path, suffix):
        try:
            reader = pyarrow.ipc.open_file(
                pyarrow.memory_map(str(place)), options=pyarrow.ipc.IpcReadOptions(use_threads=False)
            )
            about = json.loads((reader.schema.metadata or {}).get(METADATA_KEY, b"{}"))
        except (OSError, ValueError):  # ArrowInvalid is a ValueError
            continue
        if about.get("version") == VERSION and about.get("state") == state:
            return reader, about
    return None


def _open(path: Path, suffix: str, state: dict[str, Any]) -> Opened:
    found = _find(path, suffix, state)
    if found is None:
        raise UserError(f"{path} changed while it was read, expected it to stay as it is; start again")
    return found
