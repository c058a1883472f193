"""Prints the demo's headings, commands and tables; silences other messages."""

import contextlib
import io
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

SILENCED = (
    "Seed set to",
    "GPU available: False",
    "TPU available: False",
    "`Trainer.fit` stopped: `max_steps=",
)
"""First words of Lightning 2.6's messages that do not help a user of the demo."""


def quiet() -> None:
    """Silence the messages `SILENCED` and transformers' progress bars. Call it before Lightning's first message."""
    from transformers.utils import logging as transformers_logging

    from kebyt5_xm.training.library_messages import silence

    transformers_logging.disable_progress_bar()
    silence(*SILENCED)


def heading(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def command(*words: str | Path) -> None:
    """Print a command as typed in the working folder."""
    print(f"$ {shlex.join(_relative(word) for word in words)}", flush=True)


def _relative(word: str | Path) -> str:
    return os.path.relpath(word) if isinstance(word, Path) else word


@contextlib.contextmanager
def hidden_summary() -> Iterator[None]:
    """Hide a command's standard output; print its errors at the end."""
    problems = io.StringIO()  # not a terminal, so no progress bar appears
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(problems):
            yield
    finally:
        sys.stderr.write(problems.getvalue())


def table(header: Sequence[str], rows: Sequence[Sequence[str | float | None]], text_columns: int = 1) -> str:
    """Return rows as aligned columns: the first `text_columns` left-aligned, the rest right-aligned.

    Floats have two decimals, None is a dash. A Korean, Chinese or Japanese character is two terminal columns wide.
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(_width(line[column]) for line in cells) for column in range(len(header))]
    lines = []
    for line in cells:
        padded = []
        for column, (text, width) in enumerate(zip(line, widths, strict=True)):
            space = " " * (width - _width(text))
            padded.append(text + space if column < text_columns else space + text)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.combining(character) > 0 for character in text)
    return len(text) + wide - marks
