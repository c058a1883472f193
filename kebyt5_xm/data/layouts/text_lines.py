"""Lines of a text file with their numbers, so that every refusal can name one."""

import codecs
import io
from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.data.tables.json_value import BYTE_ORDER_MARK, UTF_16
from kebyt5_xm.errors import UserError

START_BYTES = 1 << 16


def check_encoding(encoding: str) -> None:
    """Raise `UserError` unless Python knows this encoding of text."""
    try:
        "\n".encode(codecs.lookup(encoding).name)
    except LookupError:  # bytes to bytes, such as base64, too
        raise UserError(
            f"found the encoding '{encoding}', expected one such as utf-8 or cp949; correct it"
        ) from None


def numbered_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text without its line end) of every line, without a byte order mark.

    Lines end with `\\n` or `\\r\\n`; with `\\r` where a file has no other. Raises `UserError` with the line where the
    file is not in this encoding.
    """
    for number, text in raw_lines(path, encoding):
        yield number, text.removesuffix("\n").removesuffix("\r")


def raw_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text with its line end) of every line, otherwise as `numbered_lines`."""
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
                hint = "the file begins as UTF-16 does: set `encoding: utf-16`"
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
    with_ends = "\n".encode(codecs.lookup(encoding).name) == b"\n"
    if not with_ends or (b"\r" in start and b"\n" not in start):
        newline = "" if with_ends else "\n"
        wrapped = io.TextIOWrapper(file, encoding, newline=newline)
        try:
            yield from wrapped
        finally:
            wrapped.detach()
    else:
        for line in file:
            yield line.decode(encoding)


def _encoding_hint(line: bytes, encoding: str) -> str:
    """Return a hint to the encoding of most Korean files that are not UTF-8, if a line could be in it."""
    try:
        line.decode("cp949")
    except UnicodeDecodeError:
        return ""
    return "" if codecs.lookup(encoding).name == "cp949" else ", which may be cp949,"
