"""Opens byte ranges of a file as one file."""

import io
from bisect import bisect_right
from itertools import accumulate
from typing import Any, BinaryIO, cast

ByteRange = tuple[int, int]
"""First byte, and the byte behind the last."""


class _RangeFile(io.RawIOBase):
    """`head`, then the ranges of `stream`, joined. Closing this file leaves `stream` open."""

    def __init__(self, stream: BinaryIO, ranges: list[ByteRange], head: bytes) -> None:
        self._stream, self._ranges, self._head = stream, ranges, head
        lengths = [max(0, end - start) for start, end in ranges]
        # Offsets in this file at which the ranges begin.
        *self._starts, self._size = accumulate(lengths, initial=len(head))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        found = self._read(self._position, len(buffer))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def readall(self) -> bytes:  # Python's default reads 8 KiB at a time
        parts: list[bytes] = []
        while found := self._read(self._position, self._size - self._position):
            parts.append(found)
            self._position += len(found)
        return b"".join(parts)

    def _read(self, at: int, size: int) -> bytes:
        """Return 1 to `size` bytes at offset `at` of this file; no bytes at its end."""
        if at < len(self._head):
            return self._head[at : at + size]
        if at >= self._size:
            return b""
        number = bisect_right(self._starts, at) - 1
        start, end = self._ranges[number]
        found = start + at - self._starts[number]
        self._stream.seek(found)
        return self._stream.read(min(size, end - found))


def open_range(stream: BinaryIO, start: int, end: int, head: bytes = b"") -> BinaryIO:
    """Return `head` and the bytes `start` to `end` of `stream` as a seekable file."""
    return open_ranges(stream, [(start, end)], head)


def open_ranges(stream: BinaryIO, parts: list[ByteRange], head: bytes = b"") -> BinaryIO:
    """Return `head` and the byte ranges `parts` of `stream`, joined, as a seekable file."""
    return cast(BinaryIO, io.BufferedReader(_RangeFile(stream, join_adjacent(parts), head), 1 << 16))


def join_adjacent(parts: list[ByteRange]) -> list[ByteRange]:
    """Return the same bytes in as few ranges as possible: a range that begins where the one before ends joins it."""
    joined: list[ByteRange] = []
    for start, end in parts:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
