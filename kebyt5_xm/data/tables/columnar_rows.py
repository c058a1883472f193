"""Parquet, Arrow (also Feather) and ORC files with random access.

These formats are read in whole groups of rows, often a million, so each shuffled row would cost a group. Instead the
table is written once as an Arrow file (`X.rows`, in batches of 128 rows) and memory-mapped: reading a row opens one
batch, and nothing is held in memory.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc

from kebyt5_xm.data.tables.arrow_rows import BATCH_ROWS, ArrowRows, TableContents
from kebyt5_xm.data.tables.arrow_values import to_plain_array, to_plain_schema
from kebyt5_xm.errors import UserError

FEATHER_1_MAGIC, ARROW_FILE_MAGIC = b"FEA1", b"ARROW1"
"""First bytes of a Feather 1 file and of an Arrow file. An Arrow stream has no such mark."""


class ColumnarRows(ArrowRows):
    """Base class of columnar files. The first opening writes the table as an Arrow file."""

    suffix = ".rows"
    kind: str
    """Name of the format in error messages."""

    @abstractmethod
    def _read_schema(self) -> tuple[int, pyarrow.Schema]:
        """Return the number of rows and the schema."""

    @abstractmethod
    def _read_batches(self) -> Iterator[pyarrow.RecordBatch]:
        """Yield all rows from the start."""

    def _read_contents(self, state: dict[str, Any]) -> TableContents:
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        try:
            num_rows, schema = self._read_schema()
            schema = to_plain_schema(schema)
        except (OSError, ValueError, pyarrow.ArrowException) as error:  # ValueError: names that are not UTF-8
            raise self._damaged_error(error) from error
        return TableContents(digest, num_rows, schema, lambda: self._convert_batches(schema))

    def _convert_batches(self, schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
        try:
            for batch in self._read_batches():
                pairs = zip(batch.columns, schema, strict=True)
                columns = [to_plain_array(column, field.type) for column, field in pairs]
                yield pyarrow.RecordBatch.from_arrays(columns, schema=schema)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            # Without this, the caller would report it as a failure to write.
            raise self._damaged_error(error) from error

    def _damaged_error(self, error: Exception) -> UserError:
        cause = " ".join(str(error).split())
        return UserError(f"cannot read {self.path} to its end ({cause}), expected {self.kind}: get it again")


class ParquetRows(ColumnarRows):
    """The rows of a parquet file."""

    kind = "a parquet file"

    def _read_schema(self) -> tuple[int, pyarrow.Schema]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            return file.metadata.num_rows, file.schema_arrow

    def _read_batches(self) -> Iterator[pyarrow.RecordBatch]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):  # pyarrow 26 returns broken batches across groups
                yield from file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)


class OrcRows(ColumnarRows):
    """The rows of an ORC file."""

    kind = "an ORC file"

    def _read_schema(self) -> tuple[int, pyarrow.Schema]:
        import pyarrow.orc

        file = pyarrow.orc.ORCFile(self.path)
        return file.nrows, file.schema

    def _read_batches(self) -> Iterator[pyarrow.RecordBatch]:
        import pyarrow.orc

        file = pyarrow.orc.ORCFile(self.path)
        for stripe in range(file.nstripes):
            yield file.read_stripe(stripe)


class ArrowFileRows(ColumnarRows):
    """The rows of an Arrow file or stream. Feather version 2 is an Arrow file."""

    kind = "an Arrow file"

    def _read_schema(self) -> tuple[int, pyarrow.Schema]:
        if _starts_with(self.path, FEATHER_1_MAGIC):
            raise UserError(
                f"{self.path} is a Feather file of version 1, expected version 2; convert it: "
                "pandas.read_feather(IN).to_parquet(OUT)"
            )
        with pyarrow.memory_map(str(self.path)) as source, self._open_reader(source) as reader:
            return sum(batch.num_rows for batch in _iterate_batches(reader)), reader.schema

    def _read_batches(self) -> Iterator[pyarrow.RecordBatch]:
        with pyarrow.memory_map(str(self.path)) as source, self._open_reader(source) as reader:
            yield from _iterate_batches(reader)

    def _open_reader(self, source: Any) -> Any:
        options = pyarrow.ipc.IpcReadOptions(use_threads=False)
        if _starts_with(self.path, ARROW_FILE_MAGIC):
            return pyarrow.ipc.open_file(source, options=options)
        return pyarrow.ipc.open_stream(source, options=options)


def _starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _iterate_batches(reader: Any) -> Iterator[pyarrow.RecordBatch]:
    if isinstance(reader, pyarrow.ipc.RecordBatchFileReader):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)
