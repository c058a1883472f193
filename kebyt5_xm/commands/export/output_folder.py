"""The folder of an export: written complete or not at all, and only over an earlier export."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kebyt5_xm.durable import durable_folder
from kebyt5_xm.errors import UserError
from kebyt5_xm.weight_files import ABOUT


def check_output_folder(out: Path, overwrite: bool) -> None:
    """Raise `UserError` unless an export may be written to `out`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UserError(
            f"'{out}' exists and is not empty; choose another folder, or --overwrite an earlier export"
        )
    if not _is_export(out):
        raise UserError(
            f"'{out}' is not an export of this project and is not overwritten; choose another folder"
        )


def _is_export(out: Path) -> bool:
    try:
        content = json.loads((out / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and ABOUT in content


@contextmanager
def atomic_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary folder that replaces `out` at the end, or is deleted if anything fails."""
    check_output_folder(out, overwrite)
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with durable_folder(out) as folder:
        yield folder
