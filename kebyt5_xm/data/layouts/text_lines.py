"""Reads numbered lines of a text file, so that every error can name the line."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.data.tables.json_value import BYTE_ORDER_MARK, UTF_16
from kebyt5_xm.errors import UserError

START_BYTES = 1 << 16


def check_encoding(encoding: str) -> None:
    """Raise `UserError` unless Python knows this text encoding."""
    try:
        "\n".encode(codecs.lookup(encoding).name)
    except LookupError:  # also for codecs from bytes to bytes, such as base64
        raise UserError(
            f"found the encoding '{encoding}', expected one such as utf-8 or cp949; correct it"
        ) from None


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text without its line end) of every line, without a byte order mark.

    Lines end with `\\n` or `\\r\\n`, or with `\\r` if a file has no other line end. Raises `UserError` with the line
    if the file is not in this encoding.
    """
    for number, text in read_raw_lines(path, encoding):
        yield number, text.removesuffix("\n").removesuffix("\r")


def read_raw_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text with its line end) of every line; otherwise like `read_lines`."""
    number = 0
    with path.open("rb") as file:
        start = file.read(START_BYTES)
        file.seek(0)
        lines = _decode(file, start, encoding)
        try:
            for number, text in enumerate(lines, 1):
                yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
        except UnicodeDecodeError as error:
            if start.startswith(UTF_16):
                hint = "the file begins like UTF-16: set `encoding: utf-16`"
            else:
                hint = f"set its `encoding`{_encoding_hint(error.object, encoding)}"
            raise UserError(
                f"line {number + 1} of {path} is not {encoding} (byte {error.start} of the line); {hint} in the "
                "settings of `format`, or convert the file"
            ) from None
        except UnicodeError as error:  # UTF-16 without a byte order mark
            raise UserError(
                f"line {number + 1} of {path} is not {encoding} ({error}); correct `encoding` in the settings of "
                "`format`, such as utf-16-le, or convert the file"
            ) from None


def _decode(file: io.BufferedReader, start: bytes, encoding: str) -> Iterator[str]:
    has_byte_newline = "\n".encode(codecs.lookup(encoding).name) == b"\n"
    if not has_byte_newline or (b"\r" in start and b"\n" not in start):
        newline = "" if has_byte_newline else "\n"
        wrapped = io.TextIOWrapper(file, encoding, newline=newline)
        try:
            yield from wrapped
        finally:
            wrapped.detach()
    else:
        for line in file:
            yield line.decode(encoding)


def _encoding_hint(line: bytes, encoding: str) -> str:
    """Return a hint to cp949, the usual encoding of Korean files that are not UTF-8, if the line decodes with it."""
    try:
        line.decode("cp949")
    except UnicodeDecodeError:
        return ""
    return "" if codecs.lookup(encoding).name == "cp949" else ", which may be cp949,"
