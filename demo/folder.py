"""The demo's folder, `runs/demo/`: what lies where, and starting it afresh."""

import shutil
from pathlib import Path

from kebyt5_xm.errors import UserError

RECIPES = Path(__file__).parents[1] / "configs" / "demo"

FOLDER = Path("runs/demo")
"""Relative to where the demo is started, as are the same paths in its recipes."""
DATA = FOLDER / "data"
EXPORTS = FOLDER / "export"
RESULTS = FOLDER / "results.json"

MARKER = FOLDER / ".made-by-the-demo"
"""Its presence says that the folder is the demo's own and may be deleted."""


def start_afresh() -> None:
    """Make `runs/demo/`, empty; an earlier demo's is deleted.

    Raises UserError, and touches nothing, if the folder was not made by the demo.
    """
    if FOLDER.is_symlink() or (FOLDER.exists() and not MARKER.is_file() and not _is_empty(FOLDER)):
        raise UserError(
            f"'{FOLDER}' exists and was not made by the demo (it has no {MARKER.name}); move it elsewhere"
        )
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    FOLDER.mkdir(parents=True)
    MARKER.write_text("`python -m demo` made this folder and deletes it when it is started again.\n")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
