"""Manifests: tables of rows, any of which can be read at once, however long the file.

- JSON lines (`.jsonl`, `.ndjson`, `.json`): read in place, through an index of where the lines start.
- The same compressed (`.jsonl.gz`, `.jsonl.zst`, ...): neither format can be entered in the middle, so the lines
  are decompressed once, into a file beside the manifest.
- Parquet (`.parquet`): a row group can only be read as a whole, which makes shuffled rows as dear as groups, so
  the table is written once as an Arrow file, which is memory-mapped.

What is made of the manifest X is `X.index` and `X.rows` beside it, or in the cache folder (`KEBYT5_XM_CACHE`, else
`kebyt5-xm` in the user's cache folder) where X's folder cannot be written. It is written under another name and
renamed, so that a half-made one is never found, and made again when X has changed. With several processes, open
the manifest in one of them first.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kebyt5_xm.data.bad_sample import RowError
from kebyt5_xm.errors import UserError

# Columns are those of the first rows; a column that appears later is still rendered.
ROWS_FOR_COLUMNS = 100


class Rows(ABC):
    """A table with random access. `path` is the manifest's; `fingerprint` changes with its content.

    It holds open files, and is pickled as its path: another process opens it again.
    """

    path: Path
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """Return row `index`, from 0; raise `RowError` with its line if it cannot be read."""

    @abstractmethod
    def line(self, index: int) -> int:
        """Return where row `index` stands in the manifest, from 1: its line, or in parquet its number."""

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the first hundred rows; raises `UserError` if none of them can be read."""
        columns: dict[str, None] = {}
        error: RowError | None = None
        for index in range(min(ROWS_FOR_COLUMNS, len(self))):
            try:
                columns.update(dict.fromkeys(self.row(index)))
            except RowError as failure:
                error = error or failure
        if not columns and error is not None:
            raise UserError(f"{error}; none of the first rows can be read")
        return tuple(columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_rows, (self.path,)


def open_rows(path: str | Path) -> Rows:
    """Open a manifest; raise `UserError` if it does not exist, is of no known kind or holds no rows.

    The first time, and whenever the file has changed, its index is made, which reads the file once.
    """
    from kebyt5_xm.data.json_lines import JsonLines
    from kebyt5_xm.data.parquet_rows import ParquetRows

    kinds: Mapping[str, type[JsonLines] | type[ParquetRows]] = {
        **dict.fromkeys((".jsonl", ".ndjson", ".json"), JsonLines),
        ".parquet": ParquetRows,
    }
    path = Path(path)
    if not path.is_file():
        raise UserError(f"found no manifest at {path}, expected a file; correct the path")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compressed = suffixes[-1:] in ([".gz"], [".zst"])
    kind = kinds.get("".join(suffixes[-2:-1] if compressed else suffixes[-1:]))
    if kind is None or (compressed and kind is ParquetRows):
        raise UserError(
            f"found a manifest named {path.name}, expected one that ends in {', '.join(kinds)}, or JSON lines "
            "with .gz or .zst behind that; rename or convert it"
        )
    rows = kind(path)
    if not len(rows):
        raise UserError(f"found no rows in {path}, expected at least one")
    return rows
