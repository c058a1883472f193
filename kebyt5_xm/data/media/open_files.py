"""Files that are open while they are in use, and closed once many others have been used since.

A data set may have thousands of shards, a process often has 1,024 descriptors, and 256 on some systems.
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
"""Number of an `LazyFile` -> what it has open, and how many descriptors that takes; the least used one first."""


class LazyFile(Generic[T]):
    """What `open_file` returns, opened when it is asked for. It is closed by the last reference to it.

    All of a process together hold a third of its descriptors at most. After a fork each process has its own.

    Args:
        open_it: opens the files. It is called again if they were closed in between.
        files: descriptors that it takes.
    """

    def __init__(self, open_file: Callable[[], T], num_files: int = 1) -> None:
        self._open_file, self._num_files, self._number = open_file, num_files, next(_numbers)
        weakref.finalize(self, _open.pop, self._number, None)

    def get(self) -> T:
        """Return what is open, opening it first where need be; raises what `open_file` does."""
        found = _open.get(self._number)
        if found is not None:
            with suppress(KeyError):  # another thread has closed it: `found` holds it open
                _open.move_to_end(self._number)
            return found[0]
        _close_least_recent(self._num_files)
        opened = self._open_file()
        _open[self._number] = opened, self._num_files
        return opened


class OpenFile:
    """A descriptor for reading by position, closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):  # it is not where the file could not be opened
            os.close(self.descriptor)


def _close_least_recent(num_files: int) -> None:
    most = min(MAX_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
    used = sum(taken for _, taken in list(_open.values()))
    with suppress(KeyError):  # nothing is open any more
        while used + num_files > most:
            _, (_, taken) = _open.popitem(last=False)
            used -= taken
