"""Stretches of an open file, end to end, as a file of their own."""

import io
from bisect import bisect_right
from itertools import accumulate
from typing import Any, BinaryIO, cast

ByteRange = tuple[int, int]
"""From byte, up to byte."""


class _RangeFile(io.RawIOBase):
    """`head`, then the spans of `stream`, one behind the other. The stream stays open and is not owned."""

    def __init__(self, stream: BinaryIO, open_ranges: list[ByteRange], head: bytes) -> None:
        self._stream, self._ranges, self._head = stream, open_ranges, head
        lengths = [max(0, end - start) for start, end in open_ranges]
        *self._starts, self._size = accumulate(
            lengths, initial=len(head)
        )  # where the spans begin in this file
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

    def readall(self) -> bytes:  # Python's own reads 8 KiB at a time
        parts: list[bytes] = []
        while found := self._read(self._position, self._size - self._position):
            parts.append(found)
            self._position += len(found)
        return b"".join(parts)

    def _read(self, at: int, size: int) -> bytes:
        """Return 1 to `size` bytes from byte `at` of this file on; none where there are no more."""
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
    """Return `head` and the bytes `start` to `end` of `stream` as a file that can be sought in."""
    return open_ranges(stream, [(start, end)], head)


def open_ranges(stream: BinaryIO, parts: list[ByteRange], head: bytes = b"") -> BinaryIO:
    """Return `head` and the spans of `stream`, one behind the other, as a file that can be sought in."""
    joined: list[ByteRange] = []
    for start, end in parts:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return cast(BinaryIO, io.BufferedReader(_RangeFile(stream, joined, head), 1 << 16))
