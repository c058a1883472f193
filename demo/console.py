"""What the demo prints: headings, the commands it runs, tables; and what it keeps from being printed."""

import contextlib
import io
import os
import shlex
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

UNTOLD = ("Seed set to", "GPU available: False", "TPU available: False", "`Trainer.fit` stopped: `max_steps=")
"""How the messages of Lightning 2.6 begin that say nothing to a user of the demo: it tells or knows that itself."""


def quiet() -> None:
    """Keep `UNTOLD` and transformers' bars from being printed. To be called before Lightning's first message."""
    from transformers.utils import logging as transformers_logging

    from kebyt5_xm.training.library_messages import silence

    transformers_logging.disable_progress_bar()
    silence(*UNTOLD)


def heading(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def command(*words: str | Path) -> None:
    """Print a command as one would type it in the folder where the demo was started."""
    print(f"$ {shlex.join(_relative(word) for word in words)}", flush=True)


def _relative(word: str | Path) -> str:
    return os.path.relpath(word) if isinstance(word, Path) else word


@contextlib.contextmanager
def summary_left_out() -> Iterator[None]:
    """Keep what a command prints about its success to itself; what it says about problems is printed."""
    problems = io.StringIO()  # no terminal, so no progress bar is drawn on it
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(problems):
            yield
    finally:
        sys.stderr.write(problems.getvalue())


def table(header: Sequence[str], rows: Sequence[Sequence[str | float | None]], text_columns: int = 1) -> str:
    """Return rows as aligned columns: the first `text_columns` to the left, the rest to the right.

    Floats get two decimals, None is a dash. A Korean, Chinese or Japanese character takes two columns of a
    terminal.
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
