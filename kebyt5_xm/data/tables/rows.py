"""The interface of a manifest's table: random access to rows, however long the file."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kebyt5_xm.data.media.bad_sample import RowError
from kebyt5_xm.errors import UserError

ROWS_FOR_COLUMNS = 100
# A row holds texts and references, not media. Our own choice, far above any text used for training.
MAX_ROW_BYTES = 64 << 20
MAX_DEPTH = 8
"""Levels of nested objects whose keys count as columns."""


class Row(Mapping[str, Any]):
    """One row: column -> value. Values are read on access, so an unreadable column matters only if it is used.

    A dotted name is the column of exactly that name. If there is none, it is a path into a column that holds objects:
    `translation.en` is `row["translation"]["en"]`, and None if the object is None.

    Args:
        columns: the names of the columns, in order.
        read: returns the value of a column; raises `RowError` if the value cannot be read.
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
    """Yield (head, rest) for every dot of a name, the last dot first."""
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
    """Yield the keys of an object, each followed by the dotted keys of its nested objects."""
    for name, inner in value.items():
        yield f"{prefix}{name}"
        if isinstance(inner, Mapping) and depth > 1:
            yield from list_names(inner, f"{prefix}{name}.", depth - 1)


class Rows(ABC):
    """A table with random access, opened from `path`.

    It opens files on demand and is pickled as its path; another process opens it again. `fingerprint` is a hash of
    the content and depends neither on the file's location nor on its compression. `name` is used in messages.
    """

    fingerprint: str

    def __init__(self, path: Path):
        self.path = Path(os.path.abspath(path))
        self.name = str(self.path)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> Mapping[str, Any]:
        """Return row `index`, counted from 0; raise `RowError` with its line if it cannot be read."""

    def line(self, index: int) -> int:
        """Return the line of row `index` in the manifest, from 1; the row's number if there are no lines."""
        return index + 1

    def place(self, index: int) -> tuple[str, int]:
        """Return the file and the line (from 1) of row `index`."""
        return self.name, self.line(index)

    def error(self, index: int, cause: str) -> RowError:
        """Return the error that says why row `index` cannot be read."""
        return RowError(*self.place(index), cause)

    @property
    def root(self) -> Path:
        """The folder that media paths in rows are relative to and must stay in: the manifest's folder."""
        return self.path.parent

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of the first hundred rows, with the dotted names of nested objects.

        Raises `UserError` if none of these rows can be read.
        """
        return list_first_names(self, list_names)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path,)


def list_first_names(rows: Rows, names: Callable[[Mapping[str, Any]], Iterable[str]]) -> tuple[str, ...]:
    """Return the distinct results of `names` for the first hundred rows.

    Raises `UserError` if none of these rows can be read.
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
        raise UserError(
            f"{first_error}; expected at least one readable row among the first {ROWS_FOR_COLUMNS}"
        )
    return tuple(found)
