"""The manifest that a teacher answers, and the rows of the one that it writes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.generate.inputs import TableInputs
from kebyt5_xm.commands.teach.question import Question
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.tables.rows import ROWS_FOR_COLUMNS, Rows
from kebyt5_xm.errors import UserError

ADDED = ("row", "answer", "confidence", "log_probability", "num_tokens", "finish_reason")
"""The columns that a teacher adds; `row` is the number of the row, from 0."""


class ManifestInputs(TableInputs):
    """The rows of a manifest, and the lines for them in another manifest at `out`.

    Raises `UserError` if the prompt does not fit the columns, if a column would be added twice, or if `out` is in
    another folder than media that the rows name.
    """

    def __init__(self, path: str, question: Question, out: Path, prefix: str, allow_outside: bool) -> None:
        super().__init__(path, question.prompt, allow_outside, question.excerpts, escaped=False)
        self.key = f"{prefix}row"
        self._prefix = prefix
        for name in ADDED:
            if f"{prefix}{name}" in self._rows.columns:
                raise UserError(
                    f"found a column '{prefix}{name}' in '{path}', which the answers would replace; give --prefix, "
                    "such as teacher_, for the names of the new columns"
                )
        check_place(self._rows, out, bool(self._prompt.modalities))
        self.settings |= {"prefix": prefix}

    def line(self, number: int, added: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with the columns that a teacher adds."""
        columns = {f"{self._prefix}{name}": value for name, value in added.items()}
        return {self.key: number, **self.columns(number), **columns}

    def columns(self, number: int) -> dict[str, Any]:
        """Return the columns of a row as plain values. Raises `BadSample` for what JSON has not."""
        row = dict(self._rows.row(number))
        for name, value in row.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                raise BadSample(
                    f"column '{name}' is of type {type(value).__name__}, which JSON lines cannot hold; write the "
                    "table with text, numbers and the paths of files"
                ) from None
        return row


def check_place(rows: Rows, out: Path, has_media: bool) -> None:
    """Raise `UserError` if rows written to `out` would name media that are not found from there.

    `has_media` says that they name some; else the first rows are searched for paths of existing files.
    """
    root, folder = os.path.realpath(rows.root), os.path.realpath(out.absolute().parent)
    if root == folder:
        return
    named = "of media" if has_media else _column_of_files(rows, root)
    if named:
        raise UserError(
            f"found --out '{out}' in another folder than '{rows.name}', whose rows have paths ({named}) relative to "
            f"theirs; write it to '{root}'"
        )


def _column_of_files(rows: Rows, root: str) -> str | None:
    for number in range(min(ROWS_FOR_COLUMNS, len(rows))):
        try:
            row = dict(rows.row(number))
        except BadSample:
            continue
        for name, value in row.items():
            if any(_is_file(root, item) for item in (value if isinstance(value, list) else [value])):
                return f"column '{name}'"
    return None


def _is_file(root: str, value: Any) -> bool:
    if not isinstance(value, str) or not value or "\0" in value or os.path.isabs(value):
        return False
    try:
        return os.path.isfile(os.path.join(root, value))
    except (OSError, ValueError):  # far too long for a path
        return False
