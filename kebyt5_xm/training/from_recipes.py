"""Builds the task and the data of recipes as `train.py fit` does, without a run or a trainer."""

import importlib
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import SHAPES, Backbone
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import recipes, signatures
from kebyt5_xm.training.recipe_cli import RecipeCLI
from kebyt5_xm.training.recipe_imports import limit_imports
from kebyt5_xm.training.task import Task


class _Reader(RecipeCLI):
    """Builds model and data, but no trainer and no run directory; nothing runs."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


ANY_WIDTH = 55_440
"""Stands in for the unknown width of a backbone: a multiple of every number of heads up to 12, and of 16."""


def build_task(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str] = (), ask_hub: bool = True
) -> tuple[Task, DataModule]:
    """Return the task and the data of the recipes, as `build_with_config` does."""
    return build_with_config(paths, random_weights, trusted_modules, ask_hub)[:2]


def build_with_config(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str] = (), ask_hub: bool = True
) -> tuple[Task, DataModule, Any]:
    """Return the task, the data and the parsed options, with all defaults, of the merged recipes at `paths`.

    `kebyt5_xm.trust` says what the recipes may import. With `random_weights`, nothing pretrained is loaded; with
    `ask_hub`, the backbone then has the shape that the config.json of its weights gives. Raises `UserError`, or exits
    with 2 as `train.py` does.
    """
    merged = recipes.merge(paths)
    with limit_imports(paths, trusted_modules):
        reader = _read(_without_pretrained_encoders(merged) if random_weights else merged, paths)
    task, data = reader.task_and_data
    if random_weights:
        task.builder.backbone = _with_random_weights(task.backbone, ask_hub)
    return task, data, reader.config["fit"]


def _read(recipe: recipes.Recipe, paths: list[str]) -> _Reader:
    """Build what a recipe says; `paths` are the files that it was merged from, which errors name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.yaml"
        path.write_text(recipes.to_yaml(recipe), encoding="utf-8")
        return _Reader(["fit", "--config", str(path)], paths, save_config_callback=None)


def _without_pretrained_encoders(recipe: recipes.Recipe) -> recipes.Recipe:
    """Return `recipe` with `pretrained: false` for every encoder that has the option, and without adapter weights."""
    modalities = {}
    for name, block in ((recipe.get("model") or {}).get("modalities") or {}).items():
        encoder = block.get("encoder") if isinstance(block, dict) else None
        if not isinstance(encoder, dict) or not isinstance(encoder.get("class_path"), str):
            continue  # the parser reports the error
        changed = {key: value for key, value in block.items() if key != "weights"}
        init_args = dict(encoder.get("init_args") or {})
        if "pretrained" in _argument_names(encoder["class_path"]):
            init_args["pretrained"] = False
            init_args.pop("checkpoint_path", None)
        modalities[name] = {**changed, "encoder": {**encoder, "init_args": init_args}}
    if not modalities:
        return recipe
    model = recipe["model"]
    return {**recipe, "model": {**model, "modalities": {**model["modalities"], **modalities}}}


def _argument_names(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    try:
        return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, UserError):
        return set()  # the parser reports the error


def build_data(paths: list[str], trusted_modules: Sequence[str] = ()) -> DataModule:
    """Return the connected data of the recipes, for commands that only read data: no weights, no cache, no hub.

    The data do not depend on the width of a backbone on a hub. Raises `UserError` as `build_task` does.
    """
    task, data = build_task(paths, True, trusted_modules, ask_hub=False)
    data.connect(task.interfaces(read_caches=False))
    return data


def build_held_out(
    paths: list[str], trusted_modules: Sequence[str] = (), with_training: bool = False
) -> tuple[DataModule, recipes.Recipe]:
    """Return the data of the merged recipes at `paths` for an evaluation alone, and the recipe of that data.

    Other parts of the recipes are not read, nor are training rows: a source whose class takes `path` and `validation`
    has its held-out table, or else its only one, in both places. `with_training` keeps the training rows of sources
    with both. Raises `UserError`, or exits with 2, as `build_with_config` does.
    """
    merged = recipes.merge(paths)
    data = merged.get("data")
    sources = data.get("sources") if isinstance(data, dict) else None
    if not isinstance(sources, dict) or not sources:
        raise UserError(f"found no data.sources in {', '.join(paths)}; expected the sources to evaluate on")
    assert isinstance(data, dict)
    held_out = {name: _with_held_out_rows(block, with_training) for name, block in sources.items()}
    recipe = {"data": {**{k: v for k, v in data.items() if k != "idle_modalities"}, "sources": held_out}}
    with limit_imports(paths, trusted_modules):
        reader = _read({**recipe, "model": {"backbone": {"size": "mini"}}}, paths)  # never built
    return reader.task_and_data[1], recipe


def _with_held_out_rows(block: Any, with_training: bool) -> Any:
    """Return a source's block in which training rows are the held-out ones, so that no others are opened.

    `with_training` returns a block that names both as it is.
    """
    if not isinstance(block, dict) or not isinstance(block.get("class_path"), str):
        return block  # the parser reports the error
    known = signatures.read_options(block["class_path"]) or ()
    init_args = block.get("init_args")
    if not {"path", "validation"} <= {*known} or not isinstance(init_args, dict):
        return block
    if with_training and init_args.get("validation"):
        return block
    rows = init_args.get("validation") or init_args.get("path")
    layout = (init_args.get("validation") and init_args.get("validation_format")) or init_args.get("format")
    # Held-out rows are never augmented, so the files of noises need not be there.
    unused = {"validation_format": None, "augment": None}
    changed = {**init_args, "path": rows, "validation": rows, "format": layout, **unused}
    return {**block, "init_args": {key: value for key, value in changed.items() if value is not None}}


def build_run(
    run: Run, trusted_modules: Sequence[str] = ()
) -> tuple[DataModule, dict[str, Callable[[], Encoder]]]:
    """Return the data of RUN/config.yaml, not yet connected to a model, and modality -> what builds its encoder.

    Raises `UserError`.
    """
    task, data = build_task([str(run.path / "config.yaml")], False, trusted_modules)
    return data, {name: modality.encoder for name, modality in task.builder.modalities.items()}


def _with_random_weights(backbone: Backbone, ask_hub: bool) -> Backbone:
    """Return the backbone with random weights, of the shape that the config.json of its weights gives."""
    if backbone.weights is None:
        return backbone
    if not ask_hub and not Path(backbone.weights).exists():
        width = (backbone.shape or SHAPES.get(backbone.size or "", {})).get("d_model", ANY_WIDTH)
        return Backbone(shape={**SHAPES["mini"], "d_model": width}, attention=backbone.attention)
    try:
        config = backbone.config()
    except UserError as error:
        if backbone.size is None:
            raise UserError(f"{error}; for random weights without it, give model.backbone.size") from error
        return replace(backbone, weights=None)
    shape = {key: getattr(config, key) for key in (*SHAPES["mini"], "d_kv")}
    return replace(backbone, weights=None, size=None, shape=shape)
