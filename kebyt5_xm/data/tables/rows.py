"""The contract of a manifest's table: any row at once, however long the file."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kebyt5_xm.data.media.bad_sample import RowError
from kebyt5_xm.errors import UserError

ROWS_FOR_COLUMNS = 100
# A row holds texts and references, not media. Our own choice, far above any text that would be trained on.
MAX_ROW_BYTES = 64 << 20
MAX_DEPTH = 8
"""Objects within objects whose names count as columns."""


class Row(Mapping[str, Any]):
    """One row: column -> value. A value is read when it is asked for, so that an unused column spoils no row.

    A name with dots is the column of that very name or, where there is none, what lies under these names in a column
    that holds an object: `translation.en` is `row["translation"]["en"]`. It is None where the object is.

    Args:
        columns: the names of the columns themselves, in order.
        read: returns the value of one of them; raises `RowError` where that cannot be read.
    """

    def __init__(self, columns: Collection[str], read: Callable[[str], Any]) -> None:
        self._columns, self._read = columns, read
        self._cache: dict[str, Any] = {}

    def __getitem__(self, column: str) -> Any:
        if column in self._columns:
            return self._value(column)
        for head, rest in _split_at_dots(column):
            if head in self._columns:
                try:
                    return _look_up(self._value(head), rest)
                except KeyError:
                    continue
        raise KeyError(column)

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _value(self, column: str) -> Any:
        if column not in self._cache:
            self._cache[column] = self._read(column)
        return self._cache[column]


def _split_at_dots(name: str) -> Iterator[tuple[str, str]]:
    """Yield the two sides of every dot of a name, the last dot first."""
    at = name.rfind(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def _look_up(value: Any, name: str) -> Any:
    if value is None:
        return None
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        for head, rest in _split_at_dots(name):
            if head in value:
                return _look_up(value[head], rest)
    raise KeyError(name)


def list_names(value: Mapping[str, Any], prefix: str = "", depth: int = MAX_DEPTH) -> Iterator[str]:
    """Yield the names in an object and, behind each, those within it, joined by dots."""
    for name, inner in value.items():
        yield f"{prefix}{name}"
        if isinstance(inner, Mapping) and depth > 1:
            yield from list_names(inner, f"{prefix}{name}.", depth - 1)


class Rows(ABC):
    """A table with random access, made from `path` alone.

    It opens files as it needs them, and is pickled as its path: another process opens it again. `fingerprint` is a
    hash of the content, the same wherever and however compressed the file lies. `name` is what messages call it.
    """

    fingerprint: str

    def __init__(self, path: Path):
        self.path = Path(os.path.abspath(path))
        self.name = str(self.path)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Mapping[str, Any]:
        """Return row `index`, from 0; raise `RowError` with its line if it cannot be read."""

    def line(self, index: int) -> int:
        """Return where row `index` stands in the manifest, from 1: its line, else its number."""
        return index + 1

    def place(self, index: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of row `index`."""
        return self.name, self.line(index)

    def error(self, index: int, cause: str) -> RowError:
        """Return the error that says why row `index` cannot be read."""
        return RowError(*self.place(index), cause)

    @property
    def root(self) -> Path:
        """The folder that references in rows are relative to, and may not leave: the manifest's own."""
        return self.path.parent

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the first hundred rows, and the names in those that hold objects.

        Raises `UserError` if none of these rows can be read.
        """
        return list_first_names(self, list_names)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


def list_first_names(rows: Rows, names: Callable[[Mapping[str, Any]], Iterable[str]]) -> tuple[str, ...]:
    """Return what `names` gives of the first hundred rows, each once.

    Raises `UserError` if it gives nothing, as none of them can be read.
    """
    found: dict[str, None] = {}
    first_error: RowError | None = None
    for index in range(min(ROWS_FOR_COLUMNS, len(rows))):
        try:
            for name in names(rows.row(index)):
                found[name] = None
        except RowError as error:
            first_error = first_error or error
    if not found and first_error is not None:
        raise UserError(f"{first_error}; expected one of the first {ROWS_FOR_COLUMNS} rows to be sound")
    return tuple(found)
