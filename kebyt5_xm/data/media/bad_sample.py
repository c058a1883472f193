"""Errors for a single unusable example: training skips, counts and logs it, and continues.

Names and causes come from untrusted files, so they are shortened and escaped before they are shown or written.
"""

import json
from typing import Any, NamedTuple

from kebyt5_xm.errors import UserError

MAX_SHOWN = 300
"""Characters of a name or a cause in a message; a row may hold a whole file instead of a path. Our own choice."""


def to_json_line(row: dict[str, Any]) -> bytes:
    """Return `row` as a line of JSON in UTF-8. Lone surrogates, which file names may contain, are escaped."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def escape_unprintable(text: str) -> str:
    """Return `text` with unprintable characters escaped, including line ends and terminal control codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Skip(NamedTuple):
    """Why an example was skipped. `path` is the manifest or the faulty medium; `line` of the manifest, from 1."""

    line: int
    path: str
    cause: str


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return `text` as one line of at most `limit` characters: its beginning and its end."""
    text = escape_unprintable(" ".join(text.split()) if text.isprintable() else text)
    if len(text) <= limit:
        return text
    omission = f"...({len(text)} characters)..."
    return f"{text[: limit - 60 - len(omission)]}{omission}{text[-60:]}"


class MediaRefusal(ValueError):
    """A rule of ours refuses a file. `reference.open_readable` turns this into a `MediaError` with the file name."""


class LimitRefusal(MediaRefusal):
    """A file is larger than a limit of `reference.Limits`. The message says found and expected, then "; ", remedy."""


class BadSample(UserError):
    """A row, or a file that it names, cannot be used. `cause` is one line without the file name.

    It is a `UserError`, so commands print it as one line without a traceback.
    """

    def __init__(self, cause: str):
        self.cause = shorten(cause)
        super().__init__(self.cause)


class MediaError(BadSample):
    """An image, a recording or an array at `path` cannot be read, or is refused."""

    def __init__(self, path: str, cause: str):
        super().__init__(cause)
        self.path = shorten(path)
        # pickle passes these to the class when a data worker sends the error.
        self.args = (self.path, self.cause)

    def __str__(self) -> str:
        return f"cannot use {self.path}: {self.cause}"


class RowError(BadSample):
    """A row of a manifest cannot be read. `line` counts from 1."""

    def __init__(self, path: str, line: int, cause: str):
        super().__init__(cause)
        self.path = path
        self.line = line
        self.args = (path, line, self.cause)

    def __str__(self) -> str:
        return f"cannot use line {self.line} of {self.path}: {self.cause}"
