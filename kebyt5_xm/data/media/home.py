"""`~/` where a path begins is the home folder: in every value of a recipe, and in every argument of a command.

A shell knows it at the start of a word alone, not in `--out=~/x`, and YAML not at all. What is text stays as it is.
"""

import os
import re
from typing import Any

TEXTS = ("prompt", "target", "labels", "language", "pattern", "class_path")
"""Keys of recipes, and options of commands, whose values are never paths."""
_OPTION = re.compile(r"(--?[\w.-]+=|[\w.-]+=)?(~/.*)", re.DOTALL)


def expanded(path: str) -> str:
    """Return a path with the home folder in the place of `~`."""
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def in_recipe(value: Any) -> Any:
    """Return a recipe, or a part of one, with `expanded` paths."""
    if isinstance(value, dict):
        return {key: item if key in TEXTS else in_recipe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [in_recipe(item) for item in value]
    return expanded(value) if isinstance(value, str) and value.startswith("~/") else value


def in_arguments(args: list[str]) -> list[str]:
    """Return a command's arguments with `expanded` paths, also behind an equals sign."""
    found, before = [], ""
    for arg in args:
        option = _OPTION.fullmatch(arg)
        name = (option[1] or before) if option else ""
        is_text = name.startswith("-") and name.strip("-=").rpartition(".")[2] in TEXTS
        found.append(f"{option[1] or ''}{expanded(option[2])}" if option and not is_text else arg)
        before = arg
    return found
