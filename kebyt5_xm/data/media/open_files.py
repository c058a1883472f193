"""Opens files on first use and closes the least recently used ones.

A data set may have thousands of shards, but a process often has only 1,024 descriptors, on some systems 256.
"""

import os
import resource
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")

MAX_FILES = 512
_numbers = count()
_open: OrderedDict[int, tuple[Any, int]] = OrderedDict()
"""Number of a `LazyFile` -> (opened object, number of descriptors), least recently used first."""


class LazyFile(Generic[T]):
    """Opens an object on first use. The object is closed when its last reference is gone.

    All of them together use at most a third of the process's descriptors. After a fork each process has its own.

    Args:
        open_file: opens the object; called again if the object was closed in between.
        num_files: number of descriptors that the object uses.
    """

    def __init__(self, open_file: Callable[[], T], num_files: int = 1) -> None:
        self._open_file, self._num_files, self._number = open_file, num_files, next(_numbers)
        weakref.finalize(self, _open.pop, self._number, None)

    def get(self) -> T:
        """Return the object, opened if necessary. Raises the errors of `open_file`."""
        found = _open.get(self._number)
        if found is not None:
            with suppress(KeyError):  # another thread dropped it; `found` keeps it open
                _open.move_to_end(self._number)
            return found[0]
        _close_least_recent(self._num_files)
        opened = self._open_file()
        _open[self._number] = opened, self._num_files
        return opened


class OpenFile:
    """A descriptor for reading by position. It is closed when the last reference is gone."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # unset if the file could not be opened
            os.close(self.descriptor)


def _close_least_recent(num_files: int) -> None:
    limit = min(MAX_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
    used = sum(count for _, count in list(_open.values()))
    with suppress(KeyError):  # nothing is left to close
        while used + num_files > limit:
            _, (_, count) = _open.popitem(last=False)
            used -= count
