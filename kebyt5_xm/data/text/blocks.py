"""Reads the bytes of a corpus piece from any URL, decompressed, in blocks of bounded size."""

import bz2
import gzip
import lzma
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from kebyt5_xm.data.text.corpus import Compression, Piece, open_file
from kebyt5_xm.errors import UserError

BLOCK_BYTES = 1 << 20
ZSTD_READ_BYTES = 4096
"""Compressed bytes decompressed at once. Four bytes of Zstandard can expand to a block of 128 KiB (RFC 8878,
3.1.1.2), so one step yields at most 128 MiB."""
ZSTD_MAX_WINDOW = 1 << 31
"""Allows files made with `zstd --long=31`, as large public dumps are."""
READ_BYTES = 1 << 16
"""Compressed bytes of bzip2 and xz read at once."""


class DamagedFrame(Exception):
    """Invalid bytes in a bzip2 or xz file, inside a frame or where one should begin."""


DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, DamagedFrame)
"""Errors raised while a damaged compressed file is read."""


def read_blocks(piece: Piece, progress: Callable[[int], object]) -> Iterator[bytes]:
    """Yield the decompressed bytes of a piece, without a byte order mark."""
    try:
        with open_file(piece.file.url) as raw:
            counted = _CountingReader(raw, progress)
            if piece.file.compression == "gz":
                with gzip.GzipFile(fileobj=counted) as stream:  # pyright: ignore[reportArgumentType]
                    blocks = iter(lambda: stream.read(BLOCK_BYTES), b"")
                    yield from _strip_byte_order_mark(blocks)
            elif piece.file.compression == "zst":
                yield from _strip_byte_order_mark(_decompress_zstd(counted))
            elif piece.file.compression == "bz2":
                yield from _strip_byte_order_mark(_decompress(counted, bz2.BZ2Decompressor))
            elif piece.file.compression == "xz":
                yield from _strip_byte_order_mark(_decompress(counted, lzma.LZMADecompressor))
            elif piece.stop is None:
                yield from _strip_byte_order_mark(iter(lambda: counted.read(BLOCK_BYTES), b""))
            else:
                start, stop = _find_line_start(raw, piece.start), _find_line_start(raw, piece.stop)
                raw.seek(start)
                blocks = _read_exactly(counted, stop - start, piece.file.url)
                yield from _strip_byte_order_mark(blocks) if start == 0 else blocks
    except (*DAMAGE_ERRORS, UserError):
        raise
    except Exception as error:  # any error of the library that serves the URL
        raise unreadable_error(piece, error) from error


class _CountingReader:
    """A file that reports the number of bytes of every read."""

    def __init__(self, raw: BinaryIO, progress: Callable[[int], object]) -> None:
        self.raw = raw
        self.progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        self.progress(len(data))
        return data


def _read_exactly(file: _CountingReader, size: int, url: str) -> Iterator[bytes]:
    while size:
        block = file.read(min(BLOCK_BYTES, size))
        if not block:
            raise UserError(f"{url} became shorter while it was read, expected it unchanged: start again")
        size -= len(block)
        yield block


def _find_line_start(raw: BinaryIO, position: int) -> int:
    """Return the start of the first line at or after `position`, or the end of the file if there is none."""
    if position == 0:
        return 0
    raw.seek(position - 1)
    at = position - 1
    while block := raw.read(BLOCK_BYTES):
        if (newline := block.find(b"\n")) >= 0:
            return at + newline + 1
        at += len(block)
    return at


def _strip_byte_order_mark(blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(blocks, b"").removeprefix(BOM_UTF8)
    yield from blocks


def _decompress_zstd(file: _CountingReader) -> Iterator[bytes]:
    """Decompress all frames. `zstandard`'s own reader ends a truncated file without an error."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW)
    frame = None
    parts: list[bytes] = []
    length = 0
    while data := file.read(BLOCK_BYTES):
        for start in range(0, len(data), ZSTD_READ_BYTES):
            rest = data[start : start + ZSTD_READ_BYTES]
            while rest:
                frame = frame or decompressor.decompressobj()
                try:
                    parts.append(frame.decompress(rest))
                except zstandard.ZstdError:
                    yield b"".join(parts)
                    raise
                length += len(parts[-1])
                rest = frame.unused_data
                if frame.eof:
                    frame = None
            if length >= BLOCK_BYTES:
                yield b"".join(parts)
                parts, length = [], 0
    yield b"".join(parts)
    if frame:
        raise EOFError("the last Zstandard frame is cut off")


def _decompress(file: _CountingReader, decompressor: Callable[[], Any]) -> Iterator[bytes]:
    """Decompress all frames of bzip2 or xz. Python's own readers end at a damaged later frame without an error."""
    frame = None
    rest = b""
    while data := rest or file.read(READ_BYTES):
        rest = b""
        if frame is None:
            data = data.lstrip(b"\0")  # xz: padding between frames
            if not data:
                continue
            frame = decompressor()
        try:
            yield frame.decompress(data, BLOCK_BYTES)
            while not (frame.eof or frame.needs_input):
                yield frame.decompress(b"", BLOCK_BYTES)
        except (OSError, lzma.LZMAError) as error:
            raise DamagedFrame(str(error)) from error
        if frame.eof:
            rest, frame = frame.unused_data, None
    if frame:
        raise EOFError("the last frame is cut off")


def read_start(path: Path, compression: Compression | None, size: int = 4096) -> bytes:
    """Return the first bytes of a local file, decompressed; b"" if they cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(size)
            if compression == "zst":
                frame = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW).decompressobj()
                return frame.decompress(raw)[:size]
            if compression == "gz":
                return zlib.decompressobj(wbits=31).decompress(raw, size)
            frames = {"bz2": bz2.BZ2Decompressor, "xz": lzma.LZMADecompressor}
            return frames[compression]().decompress(raw, size) if compression else raw
    except (OSError, zstandard.ZstdError, zlib.error, lzma.LZMAError, EOFError):
        return b""  # reading the whole file reports the error


def unreadable_error(piece: Piece, error: Exception) -> UserError:
    """Return the error for a file that cannot be read now."""
    return UserError(
        f"cannot read {piece.file.url}: {type(error).__name__}: {error}; "
        "finished shards are kept: run the same command again"
    )
