"""Parquet with random access.

A parquet file gives out whole row groups, often a million rows, so that shuffled rows would each cost a group.
Instead the table is written once as an Arrow file (`X.rows`: batches of 128 rows), which is memory-mapped: a row
then costs a batch's bookkeeping, and nothing is held in memory.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from kebyt5_xm.data.derived import places, state_of, write_derived
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.errors import UserError

VERSION = 1
METADATA_KEY = b"kebyt5-xm rows"
# Small enough for rows that hold whole images, large enough that ten million rows are 80,000 batches.
BATCH_ROWS = 128


class ParquetRows(Rows):
    """The rows of a parquet file. Opening it the first time writes the table as an Arrow file."""

    def __init__(self, path: Path):
        super().__init__(path)
        state = state_of(self.path)
        found = self._find(state)
        if found is None:
            self._make(state)
            found = self._find(state)
        if found is None:
            raise UserError(f"{path} changed while it was read, expected it to stay as it is; start again")
        self._reader, about = found
        self._length: int = about["rows"]
        self.fingerprint = about["digest"]

    def __len__(self) -> int:
        return self._length

    def line(self, index: int) -> int:
        return index + 1

    def row(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = self._reader.get_batch(index // BATCH_ROWS)
        return batch.slice(index % BATCH_ROWS, 1).to_pylist()[0]

    def _find(self, state: dict[str, Any]) -> tuple[pyarrow.ipc.RecordBatchFileReader, dict[str, Any]] | None:
        for place in places(self.path, ".rows"):
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
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        try:
            parquet = pyarrow.parquet.ParquetFile(self.path)
        except (OSError, pyarrow.ArrowException) as error:
            raise _damaged(self.path, error) from error
        with parquet:
            about = {"version": VERSION, "state": state, "digest": digest, "rows": parquet.metadata.num_rows}
            schema = _plain(parquet.schema_arrow).with_metadata({METADATA_KEY: json.dumps(about)})

            def write(file: BinaryIO) -> None:
                with pyarrow.ipc.new_file(file, schema) as writer:
                    for batch in _equal_batches(_batches(self.path, parquet), schema):
                        writer.write_batch(batch)

            write_derived(self.path, ".rows", write)


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read {path} to its end ({error}); expected a parquet file: get it again")


def _plain(schema: pyarrow.Schema) -> pyarrow.Schema:
    """Replace dictionary columns by their values: an Arrow file holds one dictionary, parquet one a group."""
    fields = [
        field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pyarrow.schema(fields)


def _batches(path: Path, parquet: pyarrow.parquet.ParquetFile) -> Iterator[pyarrow.RecordBatch]:
    try:
        for group in range(parquet.num_row_groups):  # batches across groups come out broken (pyarrow 26)
            yield from parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
    except (OSError, pyarrow.ArrowException) as error:  # not a failure to write, as it would seem outside
        raise _damaged(path, error) from error


def _equal_batches(
    batches: Iterator[pyarrow.RecordBatch], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    """Yield batches of exactly `BATCH_ROWS` rows, the last one excepted, whatever the groups are."""
    left = schema.empty_table()
    for batch in batches:
        columns = [
            column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        left = pyarrow.concat_tables([left, pyarrow.Table.from_arrays(columns, schema=schema)])
        if left.num_rows >= BATCH_ROWS:
            yield from left.slice(0, BATCH_ROWS).combine_chunks().to_batches()
            left = left.slice(BATCH_ROWS)
    if left.num_rows:
        yield from left.combine_chunks().to_batches()
