"""Recipes: YAML files merged in order into one.

LightningCLI replaces a whole mapping when a second config names it. Here mappings merge key by key, so an overlay
adds a modality without repeating the others. If the `class_path` of a mapping changes, the whole mapping is replaced,
because the old `init_args` belong to the old class. Null removes an entry of an earlier file from a mapping of names:
sources, modalities, groups, LoRA entries, and the stores, validation parts and labels of a source.
"""

import argparse
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from kebyt5_xm.data.media.names import expand_recipe
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.recipe_yaml import KeyPath, Unquoted, dump, read
from kebyt5_xm.trust import add_trust_argument

Recipe = dict[str, Any]

NAMED = (
    ("data", "sources"),
    ("data", "sources", "*", "init_args", "stores"),
    ("data", "sources", "*", "init_args", "validation"),
    ("data", "sources", "*", "init_args", "labels"),
    ("model", "modalities"),
    ("model", "groups"),
    ("model", "lora"),
)
"""The mappings of names in a recipe, `*` for any name. Null removes an entry from them."""


OPTIMIZER = "kebyt5_xm.optimizers.RMSScaledAdamW"
"""The optimizer of a recipe that names none. It is no default of a signature: jsonargparse (4.53) would keep its
options for another class that has the same ones, so AdamW would get its weight decay of 0 and its rate."""


def add_config_argument(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Declare `-c RECIPE` of the commands that take recipes, as `config`: a list of paths; and `--trust`."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        required=required,
        default=[],
        metavar="RECIPE",
        help="a recipe or an overlay, as for `train.py fit`; may be given several times",
    )
    add_trust_argument(parser)


def load(path: str | Path) -> Recipe:
    """Read one recipe. Raises `UserError` for a file that is missing, not YAML or not a mapping.

    Keys and values are texts, see `kebyt5_xm.training.recipe_yaml`; `~/` is the home folder.
    """
    return expand_recipe(read(path)[0])


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
    merged.pop("weights_only", None)  # in RUN/config.yaml of older versions; without effect
    return _without_nulls(merged)


def matches(at: KeyPath, patterns: Iterable[KeyPath]) -> bool:
    """Say whether a key path matches one of `patterns`, in which `*` stands for any name."""
    return any(len(at) == len(pattern) and all(map(fnmatchcase, at, pattern)) for pattern in patterns)


def _without_nulls(tree: Any, at: tuple[str, ...] = ()) -> Any:
    """Remove entries that are null after merging from every mapping of `NAMED`."""
    if not isinstance(tree, dict):
        return tree
    is_named = matches(at, NAMED)
    return {
        key: _without_nulls(value, (*at, key))
        for key, value in tree.items()
        if not (is_named and value is None)
    }


def to_yaml(recipe: Recipe) -> str:
    """Return a merged recipe as YAML in which the parser finds every value as it was written.

    Values for classes of this project are texts, and the type of the option decides their meaning, as on the command
    line. Values for the trainer and for third-party classes are numbers and booleans: their options may have no type.
    """
    model = recipe.get("model")
    if model is None or (isinstance(model, dict) and model.get("optimizer") is None):
        recipe = {**recipe, "model": {**(model or {}), "optimizer": {"class_path": OPTIMIZER}}}
    return dump(_to_text(recipe, is_ours=True))


def _to_text(value: Any, is_ours: bool) -> Any:
    if isinstance(value, dict):
        class_path = str(value.get("class_path") or "")
        return {
            name: _to_text(
                item,
                class_path.startswith("kebyt5_xm.") if name == "init_args" else is_ours and name != "trainer",
            )
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_to_text(item, is_ours) for item in value]
    return str(value) if is_ours and isinstance(value, Unquoted) else value


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
    for name, block in (modalities if isinstance(modalities, dict) else {}).items():
        encoder = block.get("encoder") if isinstance(block, dict) else None
        if isinstance(encoder, dict) and "class_path" in encoder:
            found[name] = encoder["class_path"]
    return found
