"""Rows kept in an Arrow file beside the manifest: memory-mapped, so that any row is there at once, none in memory."""

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.ipc

from kebyt5_xm.data.bad_sample import RowError
from kebyt5_xm.data.derived import places, state_of, write_derived
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.errors import UserError

VERSION = 1
METADATA_KEY = b"kebyt5-xm rows"
# Small enough for rows that hold whole images, large enough that ten million rows are 80,000 batches.
BATCH_ROWS = 128


def plain_row(table: pyarrow.RecordBatch | pyarrow.Table) -> dict[str, Any]:
    """Return the one row of `table` as Python's values. A narrow float is the number as it was written: 0.1, not
    0.10000000149011612.
    """
    row = table.to_pylist()[0]
    for field in table.schema:
        if pyarrow.types.is_float32(field.type) or pyarrow.types.is_float16(field.type):
            value = row[field.name]
            row[field.name] = None if value is None else float(str(field.type.to_pandas_dtype()(value)))
    return row


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

    def __init__(self, path: Path):
        super().__init__(path)
        state = self.state()
        found = self._find(state)
        if found is None:
            self._make(state)
            found = self._find(state)
        if found is None:
            raise UserError(f"{path} changed while it was read, expected it to stay as it is; start again")
        self._reader, about = found
        self._length: int = about["rows"]
        self.fingerprint = about["digest"]

    def state(self) -> dict[str, Any]:
        """Return what changes when the files do; raise `UserError` if there are none."""
        return state_of(self.path)

    @abstractmethod
    def _contents(self, state: dict[str, Any]) -> Contents:
        """Read the manifest, whose file is in this state; raise `UserError` if it cannot be read."""

    def __len__(self) -> int:
        return self._length

    def line(self, index: int) -> int:
        return index + 1

    def row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self._reader.get_batch(index // BATCH_ROWS)
        try:
            return plain_row(batch.slice(index % BATCH_ROWS, 1))
        except (ValueError, pyarrow.ArrowException) as error:  # text that is not UTF-8, a date out of range
            raise RowError(*self.place(index), f"{type(error).__name__}: {error}") from None

    def _find(self, state: dict[str, Any]) -> tuple[pyarrow.ipc.RecordBatchFileReader, dict[str, Any]] | None:
        for place in places(self.path, self.suffix):
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
    left = schema.empty_table()
    for batch in batches:
        left = pyarrow.concat_tables([left, pyarrow.Table.from_arrays(batch.columns, schema=schema)])
        while left.num_rows >= BATCH_ROWS:
            yield from left.slice(0, BATCH_ROWS).combine_chunks().to_batches()
            left = left.slice(BATCH_ROWS)
    if left.num_rows:
        yield from left.combine_chunks().to_batches()
