"""Stretches of an open file, end to end, as a file of their own."""

import io
from bisect import bisect_right
from itertools import accumulate
from typing import Any, BinaryIO, cast

Span = tuple[int, int]
"""From byte, up to byte."""


class _Stretch(io.RawIOBase):
    """`head`, then the spans of `stream`, one behind the other. The stream stays open and is not owned."""

    def __init__(self, stream: BinaryIO, spans: list[Span], head: bytes) -> None:
        self._stream, self._spans, self._head = stream, spans, head
        lengths = [max(0, end - start) for start, end in spans]
        self._starts = list(
            accumulate(lengths, initial=len(head))
        )  # of the spans, in this file; then its size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        found = self._read(len(buffer))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _read(self, size: int) -> bytes:
        if self._position < len(self._head):
            return self._head[self._position : self._position + size]
        if self._position >= self._starts[-1]:
            return b""
        number = bisect_right(self._starts, self._position) - 1
        start, end = self._spans[number]
        at = start + self._position - self._starts[number]
        self._stream.seek(at)
        return self._stream.read(min(size, end - at))


def stretch(stream: BinaryIO, start: int, end: int, head: bytes = b"") -> BinaryIO:
    """Return `head` and the bytes `start` to `end` of `stream` as a file that can be sought in."""
    return spans(stream, [(start, end)], head)


def spans(stream: BinaryIO, parts: list[Span], head: bytes = b"") -> BinaryIO:
    """Return `head` and the spans of `stream`, one behind the other, as a file that can be sought in."""
    joined: list[Span] = []
    for start, end in parts:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return cast(BinaryIO, io.BufferedReader(_Stretch(stream, joined, head), 1 << 16))
