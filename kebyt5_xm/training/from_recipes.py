"""From recipes to the task and its data, as `train.py fit` would make them, without a run or a trainer."""

import importlib
import inspect
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import SHAPES, Backbone
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import recipes
from kebyt5_xm.training.recipe_cli import RecipeCLI
from kebyt5_xm.training.recipe_imports import limit_imports
from kebyt5_xm.training.task import Task


class _Reader(RecipeCLI):
    """Parses and makes model and data; no trainer, no run directory, nothing runs."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""


ANY_WIDTH = 55_440
"""Stands for the width of a backbone that is not there: every number of heads to 12 and also 16 divides it."""


def build_task(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str] = (), ask_hub: bool = True
) -> tuple[Task, DataModule]:
    """Return the task and the data of `build_with_config`."""
    return build_with_config(paths, random_weights, trusted_modules, ask_hub)[:2]


def build_with_config(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str] = (), ask_hub: bool = True
) -> tuple[Task, DataModule, Any]:
    """Return what the merged recipes at `paths` configure; raises `UserError`, or exits with 2 as `train.py`.

    The third is the parsed configuration, every option of every type filled in. What the recipes may import is said
    in `kebyt5_xm.trust`. `ask_hub` says that with random weights the backbone is to have the shape of its weights'
    config.json.
    """
    merged = recipes.merge(paths)
    with limit_imports(paths, trusted_modules), tempfile.TemporaryDirectory() as folder:
        if random_weights:
            merged = _without_pretrained_encoders(merged)
        path = Path(folder) / "merged.yaml"
        path.write_text(recipes.to_yaml(merged), encoding="utf-8")
        reader = _Reader(["fit", "--config", str(path)], paths, save_config_callback=None)
    task, data = reader.task_and_data
    if random_weights:
        task.builder.backbone = _random(task.backbone, ask_hub)
    return task, data, reader.config["fit"]


def _without_pretrained_encoders(recipe: recipes.Recipe) -> recipes.Recipe:
    """Return `recipe` with `pretrained: false` for every encoder that knows the word, and no adapter weights."""
    modalities = {}
    for name, block in ((recipe.get("model") or {}).get("modalities") or {}).items():
        encoder = block.get("encoder") if isinstance(block, dict) else None
        if not isinstance(encoder, dict) or not isinstance(encoder.get("class_path"), str):
            continue  # the parser will say what is wrong with it
        changed = {key: value for key, value in block.items() if key != "weights"}
        init_args = dict(encoder.get("init_args") or {})
        if "pretrained" in _parameters(encoder["class_path"]):
            init_args["pretrained"] = False
            init_args.pop("checkpoint_path", None)
        modalities[name] = {**changed, "encoder": {**encoder, "init_args": init_args}}
    if not modalities:
        return recipe
    model = recipe["model"]
    return {**recipe, "model": {**model, "modalities": {**model["modalities"], **modalities}}}


def _parameters(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    try:
        return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, ValueError, UserError):
        return set()  # the parser will say so


def build_data(paths: list[str], trusted_modules: Sequence[str] = ()) -> DataModule:
    """Return the connected data of the recipes, for what reads data alone: no weights, no cache, no hub.

    How wide a backbone on a hub is decides nothing of the data. Raises `UserError` as `build_task`.
    """
    task, data = build_task(paths, True, trusted_modules, ask_hub=False)
    data.connect(task.interfaces(read_caches=False))
    return data


def build_run_data(run: Run, trusted_modules: Sequence[str] = ()) -> DataModule:
    """Return the data of a run, as its RUN/config.yaml says; not connected to a model yet. Raises `UserError`."""
    return build_task([str(run.path / "config.yaml")], False, trusted_modules)[1]


def _random(backbone: Backbone, ask_hub: bool) -> Backbone:
    """Return the backbone from scratch, of the shape that its weights' config.json gives."""
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
