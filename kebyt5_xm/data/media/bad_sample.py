"""One example that cannot be used: whoever draws it skips, counts and logs it, and goes on.

What is shown of it came from elsewhere: it can neither break a file nor pretend to be something else.
"""

import json
from typing import Any, NamedTuple

from kebyt5_xm.errors import UserError

MAX_SHOWN = 300
"""Characters of a name or a cause: a row may hold a whole file where a path was meant. Our own choice."""


def to_json_line(row: dict[str, Any]) -> bytes:
    """Return `row` as a line of JSON in UTF-8. Halves of characters, as names of files may hold, are escaped."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def escape_unprintable(text: str) -> str:
    """Return `text` with everything that is not printed, line ends and terminal commands among it, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class Skip(NamedTuple):
    """Why the place of an example stays empty. `path` is the manifest, or the medium that is at fault.

    `line` is the line of the manifest, from 1.
    """

    line: int
    path: str
    cause: str


def shorten(text: str, limit: int = MAX_SHOWN) -> str:
    """Return `text` as one line that fits on a screen: its beginning and its end."""
    text = escape_unprintable(" ".join(text.split()) if text.isprintable() else text)
    if len(text) <= limit:
        return text
    omission = f"...({len(text)} characters)..."
    return f"{text[: limit - 60 - len(omission)]}{omission}{text[-60:]}"


class MediaRefusal(ValueError):
    """A file breaks a rule of ours; `reading` of `kebyt5_xm.data.media.reference` puts the name to it."""


class BadSample(UserError):
    """A row, or a file it names, cannot be used. `cause` is one line without the name of the file.

    It is a `UserError`, so a command that was given the one bad file prints it like any other.
    """

    def __init__(self, cause: str):
        self.cause = shorten(cause)
        super().__init__(self.cause)


class MediaError(BadSample):
    """An image, a recording or an array cannot be read, or is refused. `path` is what was asked for."""

    def __init__(self, path: str, cause: str):
        super().__init__(cause)
        self.path = shorten(path)
        # What pickle calls the class with, on the way out of a data worker.
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
