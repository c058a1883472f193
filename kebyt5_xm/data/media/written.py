"""Text that came from elsewhere, written so that it can neither break a file nor pretend to be something else."""

import json
from typing import Any


def json_line(row: dict[str, Any]) -> bytes:
    """Return `row` as a line of JSON in UTF-8. Halves of characters, as names of files may hold, are escaped."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def visible(text: str) -> str:
    """Return `text` with everything that is not printed, line ends and terminal commands among it, escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
