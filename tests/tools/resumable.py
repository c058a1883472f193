"""A tiny run with dropout and two data workers, to be killed and continued."""

from pathlib import Path
from typing import Any

import tiny_run
from processes import train


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    contents = tiny_run.recipe(folder, run, **trainer)
    contents["model"]["backbone"]["dropout"] = 0.1
    contents["data"]["num_workers"] = 2
    return contents


def fit(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> list[int]:
    path = tiny_run.write_recipe(folder, "recipe", contents)
    return train(["fit", "-c", path, *args], folder / "log", ranks)


def fit_and_log(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> tuple[list[int], str]:
    """Run as `fit` does; return the exit codes and what the first rank printed."""
    codes = fit(folder, contents, *args, ranks=ranks)
    return codes, (folder / "log").read_text()
