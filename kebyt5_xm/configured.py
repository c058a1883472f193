"""From recipes to the task and its data, as `train.py fit` would make them, without a run or a trainer."""

import importlib
import inspect
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kebyt5_xm import recipes, trainer_options
from kebyt5_xm.backbone import SHAPES, Backbone
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.parser import Parser
from kebyt5_xm.specs import check_trusted
from kebyt5_xm.task import Task
from kebyt5_xm.training import TrainingCLI


class _Reader(TrainingCLI):
    """Parses and makes model and data; no trainer, no run directory, nothing runs."""

    def before_instantiate_classes(self) -> None:
        """Nothing: a run directory that exists already is no matter here."""

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        return None

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""


def configured(paths: list[str], random_weights: bool) -> tuple[Task, DataModule]:
    """Return what the merged recipes at `paths` configure; raises `UserError`, or exits with 2 as `train.py`."""
    if os.getcwd() not in sys.path:  # as `python train.py` finds classes beside it, and `kebyt5-xm` would not
        sys.path.insert(0, os.getcwd())
    merged = recipes.merge(paths)
    if random_weights:
        merged = _without_pretrained_encoders(merged)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "merged.yaml"
        path.write_text(recipes.written(merged), encoding="utf-8")
        reader = _Reader(
            Task,
            DataModule,
            args=["fit", "--config", str(path)],
            parser_class=Parser.of(paths),
            save_config_callback=None,
            trainer_defaults=trainer_options.DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )
    task, data = reader.model, reader.datamodule
    assert isinstance(task, Task)
    assert isinstance(data, DataModule)
    if random_weights:
        task.building.backbone = _random(task.backbone)
    return task, data


def held_to_trust(recipe: recipes.Recipe, trusted_modules: Sequence[str]) -> None:
    """Raise `UserError` if a recipe names a class outside what is trusted; nothing is imported for it."""
    libraries = ("torch", "lightning")
    for where, class_path in _class_paths(recipe, ""):
        if not class_path.startswith(tuple(f"{name}." for name in libraries)):
            check_trusted(class_path, trusted_modules, where)


def packages(recipe: recipes.Recipe) -> list[str]:
    """Return the packages of all classes that a recipe names: whoever has just run it trusts them."""
    return sorted({class_path.partition(".")[0] for _, class_path in _class_paths(recipe, "")})


def _class_paths(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield where, value["class_path"]
        for key, item in value.items():
            yield from _class_paths(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _class_paths(item, f"{where}[{number}]")


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


def _random(backbone: Backbone) -> Backbone:
    """Return the backbone from scratch, of the shape that its weights' config.json gives."""
    if backbone.weights is None:
        return backbone
    try:
        config = backbone.config()
    except UserError as error:
        if backbone.size is None:
            raise UserError(f"{error}; for random weights without it, give model.backbone.size") from error
        return replace(backbone, weights=None)
    shape = {key: getattr(config, key) for key in (*SHAPES["mini"], "d_kv")}
    return replace(backbone, weights=None, size=None, shape=shape)
