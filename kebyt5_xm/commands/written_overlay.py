"""Writes an overlay that a command recommends: YAML with its reasons as comments on top."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.recipe_yaml import dump_values

MARK = "# Overlay written by kebyt5-xm"
WIDTH = 100
"""Columns of the comments."""


def check_target(path: Path) -> None:
    """Raise `UserError` if `path` is no file that may be written: a folder, or a file of somebody else."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"cannot write '{path}': expected a file in a folder that exists; name another")
    if path.is_file() and not path.read_bytes().startswith(MARK.encode()):
        raise UserError(f"'{path}' exists and is no overlay that kebyt5-xm has written; name another file")


def write_overlay(
    path: Path, command: str, recipes: Sequence[str], reasons: Sequence[str], overlay: Mapping[str, Any]
) -> str:
    """Write `overlay`, which lies over `recipes`, and return how `train.py` takes it. Raises `UserError`.

    Args:
        command: of kebyt5-xm, that recommends it.
        reasons: lines of the comment on top.
    """
    check_target(path)
    use = "python train.py fit " + " ".join(f"-c {each}" for each in (*recipes, str(path)))
    comments = [
        line
        for reason in reasons
        for line in textwrap.wrap(reason, WIDTH, initial_indent="# ", subsequent_indent="# ")
    ]
    lines = [f"{MARK} {command}.", "#", f"#   {use}", "#", *comments]
    try:
        with durable_file(path) as file:
            file.write(("\n".join(lines) + "\n" + dump_values(overlay)).encode())
    except OSError as error:
        raise UserError(f"cannot write '{path}': {error.strerror or error}; name another file") from error
    return use
