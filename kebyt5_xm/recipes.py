"""Recipes: YAML files merged in order into one.

LightningCLI replaces a whole mapping when a second config names it; here mappings merge key by key, so an
overlay adds a modality without repeating the others. A mapping whose `class_path` changes is replaced whole,
because the old `init_args` belong to the old class. `data.sources.NAME: null` takes a source out that a file before
has brought, and `model.modalities.NAME: null` a modality.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from kebyt5_xm.errors import UserError

Recipe = dict[str, Any]


def add_config_argument(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Declare `-c RECIPE` of the commands that take recipes, as `config`: a list of paths."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        required=required,
        default=[],
        metavar="RECIPE",
        help="a recipe or an overlay, as for `train.py fit`; give it as often as you have them",
    )


def load(path: str | Path) -> Recipe:
    """Read one recipe; raise `UserError` if it is missing, is no YAML or is no mapping."""
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the config '{path}': {reason}; check the path after -c") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise UserError(f"'{path}'{line} is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(recipe, dict):
        raise UserError(
            f"'{path}' is a {type(recipe).__name__}; expected a mapping of model, data and trainer"
        )
    return recipe


def merge(paths: list[str]) -> Recipe:
    """Merge the recipes at `paths`, later ones over earlier ones.

    Raises `UserError` if two of them give one modality different encoder classes.
    """
    merged: Recipe = {}
    encoders: dict[str, tuple[str, str]] = {}
    for path in paths:
        recipe = load(path)
        for name, class_path in _encoder_classes(recipe).items():
            first, first_path = encoders.setdefault(name, (class_path, path))
            if first != class_path:
                raise UserError(
                    f"modality '{name}' has the encoder {first} in '{first_path}' and {class_path} in '{path}'; "
                    "give one of the two modalities another name"
                )
        merged = overlay(merged, recipe)
    merged.pop("weights_only", None)  # RUN/config.yaml had it once; it never meant anything
    return _without_nulls(merged)


def _without_nulls(merged: Recipe) -> Recipe:
    """Leave out the sources and modalities that are null in the end."""
    result = dict(merged)
    for section, name in (("data", "sources"), ("model", "modalities")):
        block = result.get(section)
        named = block.get(name) if isinstance(block, dict) else None
        if isinstance(block, dict) and isinstance(named, dict):
            kept = {key: value for key, value in named.items() if value is not None}
            result[section] = {**block, name: kept}
    return result


def overlay(below: Recipe, above: Recipe) -> Recipe:
    """Return `below` with `above` laid over it; neither is changed."""
    if "class_path" in above and above["class_path"] != below.get("class_path"):
        return dict(above)
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = overlay(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _encoder_classes(recipe: Recipe) -> dict[str, str]:
    model = recipe.get("model")
    modalities = model.get("modalities") if isinstance(model, dict) else None
    found = {}
    for name, block in (modalities or {}).items():
        encoder = block.get("encoder") if isinstance(block, dict) else None
        if isinstance(encoder, dict) and "class_path" in encoder:
            found[name] = encoder["class_path"]
    return found
