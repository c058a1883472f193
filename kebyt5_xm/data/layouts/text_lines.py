"""Lines of a text file with their numbers, so that every refusal can name one."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from kebyt5_xm.errors import UserError


def check_encoding(encoding: str) -> None:
    """Raise `UserError` unless lines can be read in this encoding; UTF-16 cannot be cut at its line ends."""
    try:
        usable = "\n".encode(codecs.lookup(encoding).name) == b"\n"
    except LookupError:
        usable = False
    if not usable:
        raise UserError(f"found the encoding '{encoding}', expected one such as utf-8 or cp949; correct it")


def numbered_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text without its line end) of every line, without a byte order mark.

    Raises `UserError` with the line where the file is not in this encoding.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError as error:
                raise UserError(
                    f"line {number} of {path} is not {encoding} (byte {error.start} of the line); give its encoding "
                    "in the settings of `format`, or convert the file"
                ) from None
            yield number, text.removesuffix("\n").removesuffix("\r")
