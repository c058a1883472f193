"""Rows converted once to an Arrow file next to the manifest, which is memory-mapped for random access."""

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
from kebyt5_xm.data.tables.arrow_values import list_column_names, to_python
from kebyt5_xm.data.tables.derived import list_derived_paths, read_file_state, write_derived
from kebyt5_xm.data.tables.rows import Row, Rows
from kebyt5_xm.errors import UserError

VERSION = 2
METADATA_KEY = b"kebyt5-xm rows"
# Small enough for rows that hold whole images, large enough that ten million rows are 80,000 batches.
BATCH_ROWS = 128

OpenTable = tuple[pyarrow.ipc.RecordBatchFileReader, dict[str, Any]]
"""An open Arrow file and its metadata."""


def read_cell(column: pyarrow.Array, at: int, name: str, place: tuple[str, int]) -> Any:
    """Return value number `at` of the column `name`; raise `RowError` at `place` if Python cannot hold it."""
    try:
        return to_python(column[at])
    except UnicodeDecodeError as error:
        raise RowError(
            *place, f"column '{name}' is not UTF-8: {error.reason} at byte {error.start}"
        ) from None
    except (ValueError, ArithmeticError, KeyError, pyarrow.ArrowException) as error:  # a date past 9999, say
        raise RowError(*place, f"column '{name}' ({column.type}) cannot be read: {error}") from None


class TableContents(NamedTuple):
    """What to write to the Arrow file. Each call of `batches` reads the rows again, in batches of any size."""

    digest: str
    num_rows: int
    schema: pyarrow.Schema
    batches: Callable[[], Iterator[pyarrow.RecordBatch]]


class ArrowRows(Rows):
    """Base class of tables read through an Arrow file. The file is written on first use and after a change.

    Raises `UserError` if the manifest cannot be read to its end, or the Arrow file cannot be written anywhere.
    """

    suffix: str
    hidden: tuple[str, ...] = ()
    """Columns of the Arrow file that rows do not show."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._state = self.state()
        if _find(self.path, self.suffix, self._state) is None:
            self._write(self._state)
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
        """Return a state that changes when the files change; raise `UserError` if a file is missing."""
        return read_file_state(self.path)

    @abstractmethod
    def _read_contents(self, state: dict[str, Any]) -> TableContents:
        """Read the manifest in this state; raise `UserError` if it cannot be read."""

    def __len__(self) -> int:
        return self._length

    @cached_property
    def columns(self) -> tuple[str, ...]:
        schema = self._opened.get()[0].schema
        return list_column_names(field for field in schema if field.name not in self.hidden)

    def row(self, index: int) -> Mapping[str, Any]:
        batch = self._read_batch(index)
        return Row(self._names, lambda name: self._read_cell(batch, index, name))

    def _read_batch(self, index: int) -> pyarrow.RecordBatch:
        """Return the batch that holds a row; raise `RowError` if it cannot be read."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            return self._opened.get()[0].get_batch(index // BATCH_ROWS)
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            # Not `self.error`: a layout reads the place from this same batch.
            raise RowError(self.name, index + 1, f"{type(error).__name__}: {error}") from None

    def _read_cell(self, batch: pyarrow.RecordBatch, index: int, name: str) -> Any:
        number = self._names[name]
        if number < 0:
            raise self.error(index, f"found two columns '{name}', expected one: rename one")
        return read_cell(batch.column(number), index % BATCH_ROWS, name, self.place(index))

    def _write(self, state: dict[str, Any]) -> None:
        digest, num_rows, schema, batches = self._read_contents(state)
        about = {"version": VERSION, "state": state, "digest": digest, "rows": num_rows}
        schema = schema.with_metadata({METADATA_KEY: json.dumps(about)})

        def write(file: BinaryIO) -> None:
            num_written = 0
            with pyarrow.ipc.new_file(file, schema) as writer:
                for batch in _rebatch(batches(), schema):
                    writer.write_batch(batch)
                    num_written += batch.num_rows
            if num_written != num_rows:
                raise UserError(
                    f"found {num_written} rows in {self.path}, expected {num_rows} as its header says; the file is "
                    "damaged: get it again"
                )

        write_derived(self.path, self.suffix, write)


def _rebatch(batches: Iterator[pyarrow.RecordBatch], schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of exactly `BATCH_ROWS` rows; the last one may be shorter."""
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


def _find(path: Path, suffix: str, state: dict[str, Any]) -> OpenTable | None:
    for place in list_derived_paths(path, suffix):
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


def _open(path: Path, suffix: str, state: dict[str, Any]) -> OpenTable:
    found = _find(path, suffix, state)
    if found is None:
        raise UserError(f"{path} changed while it was read, expected it unchanged; start again")
    return found
