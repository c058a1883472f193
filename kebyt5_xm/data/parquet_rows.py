"""Parquet with random access.

A parquet file gives out whole row groups, often a million rows, so that shuffled rows would each cost a group.
Instead the table is written once as an Arrow file (`X.rows`: batches of 128 rows), which is memory-mapped: a row
then costs a batch's bookkeeping, and nothing is held in memory.
"""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from kebyt5_xm.data.arrow_rows import BATCH_ROWS, ArrowRows, Contents
from kebyt5_xm.errors import UserError


class ParquetRows(ArrowRows):
    """The rows of a parquet file. Opening it the first time writes the table as an Arrow file."""

    suffix = ".rows"

    def _contents(self, state: dict[str, Any]) -> Contents:
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        try:
            parquet = pyarrow.parquet.ParquetFile(self.path)
            schema = _plain(parquet.schema_arrow)
        except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: names that are not UTF-8
            raise _damaged(self.path, error) from error
        return Contents(
            digest, parquet.metadata.num_rows, schema, partial(_batches, self.path, parquet, schema)
        )


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"cannot read {path} to its end ({error}); expected a parquet file: get it again")


def _plain(schema: pyarrow.Schema) -> pyarrow.Schema:
    """Replace dictionary columns by their values: an Arrow file holds one dictionary, parquet one a group."""
    fields = [
        field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
        for field in schema
    ]
    return pyarrow.schema(fields)


def _batches(
    path: Path, parquet: pyarrow.parquet.ParquetFile, schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    try:
        for group in range(parquet.num_row_groups):  # batches across groups come out broken (pyarrow 26)
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                columns = [
                    column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column
                    for column in batch.columns
                ]
                yield pyarrow.RecordBatch.from_arrays(columns, schema=schema)
    except (
        OSError,
        ValueError,
        pyarrow.ArrowException,
    ) as error:  # not a failure to write, as it would seem outside
        raise _damaged(path, error) from error
