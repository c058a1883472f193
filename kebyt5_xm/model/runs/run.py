"""Reads a run directory, which training writes.

RUN/config.yaml            the merged recipe, which reproduces the run
RUN/backbone/              origin of the weights: config.json, licence and notices (see `origin`)
RUN/checkpoints/best.ckpt  the best by the monitored metric
RUN/checkpoints/step=N.ckpt
RUN/metrics.csv  RUN/tensorboard/  RUN/samples/STEP.md  RUN/results.json
RUN/incidents.jsonl         steps and validations that were not finite (see `incidents`)
RUN/abandoned/              files of later steps, moved when the run continued from an older one (see `branches`)
"""

import csv
import json
import logging
import math
import zipfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kebyt5_xm.durable import path_or_aside
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.checkpoint_reading import BACKBONE_PREFIX, MODEL_PREFIX, STEP, stored_tensors
from kebyt5_xm.model.runs.digest import is_damaged
from kebyt5_xm.trust import replace_renamed_classes

if TYPE_CHECKING:
    from torch import Tensor

    from kebyt5_xm.model.lora import LoRA

_LOG = logging.getLogger(__name__)


class Run:
    """A run directory, read only.

    Args:
        path: the directory.
        chosen: one of its checkpoints, to use instead of the best.

    Raises `UserError` if `path` is not a run directory.
    """

    def __init__(self, path: str | Path, chosen: Path | None = None) -> None:
        self.path = Path(path)
        self.chosen = chosen
        if not (self.path / "config.yaml").is_file():
            found = "holds no config.yaml" if self.path.is_dir() else "is not a directory"
            raise UserError(
                f"'{self.path}' {found}; expected a run directory, as `train.py fit --run_dir` writes it"
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The merged recipe."""
        recipe = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8")) or {}
        return replace_renamed_classes(recipe)

    @property
    def evaluated_model(self) -> str | None:
        """The model of which `kebyt5-xm evaluate` wrote this folder; None for a run that training wrote."""
        return self.config.get("evaluated_model")

    @property
    def backbone(self) -> Path:
        """The folder with the config.json and the licence of the weights that the run started from."""
        return self.path / "backbone"

    @property
    def best(self) -> Path:
        """The best checkpoint; `UserError` if there is none yet."""
        path = path_or_aside(self.path / "checkpoints" / "best.ckpt")
        if not path.exists():
            self._refuse_evaluation()
            raise UserError(f"run '{self.path}' has no best checkpoint yet; it is written at a validation")
        return path

    @property
    def last(self) -> Path:
        """The undamaged checkpoint of the highest step; `UserError` if there is none.

        Skips a damaged newer one with a warning.
        """
        steps = {
            int(match[1]): path
            for path in (self.path / "checkpoints").glob("step=*.ckpt")
            if (match := STEP.fullmatch(path.name))
        }
        if not steps:
            self._refuse_evaluation()
            raise UserError(f"run '{self.path}' has no checkpoint yet; train it until it writes one")
        damaged: list[str] = []
        for _, path in sorted(steps.items(), reverse=True):
            if _is_complete(path) and not is_damaged(path):
                if damaged:
                    _LOG.warning("skips damaged checkpoints: %s; uses %s", ", ".join(damaged), path)
                return path
            damaged.append(path.name)
        raise UserError(
            f"every checkpoint of run '{self.path}' is damaged ({', '.join(damaged)}); check the disk, and start "
            "another run"
        )

    def _refuse_evaluation(self) -> None:
        if self.evaluated_model:
            raise UserError(
                f"'{self.path}' is an evaluation of '{self.evaluated_model}' and holds no weights; give that model"
            )

    def checkpoint(self) -> Path:
        """Return the chosen checkpoint, else the best, else the last; `UserError` if there is none yet."""
        if self.chosen is not None:
            return self.chosen
        best = path_or_aside(self.path / "checkpoints" / "best.ckpt")
        return best if best.exists() else self.last

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows {step, metric, value} of metrics.csv in the order in which they were logged.

        A step that was trained again after a kill has several rows; the last is valid.
        """
        path = self.path / "metrics.csv"
        if not path.is_file():
            return []
        rows = []
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                try:
                    step, metric, value = row
                    figure = {"step": int(step), "metric": metric, "value": float(value)}
                    rows += [figure] if math.isfinite(figure["value"]) else []
                except ValueError:  # the header, or a row that a kill cut short
                    continue
        return rows

    def validation(self, step: int | None = None) -> tuple[int, dict[str, dict[str, float]]]:
        """Return the step of the last validation at or before `step`, and its figures by held-out part.

        The part `all` has the figures of all parts together. Figures are `loss`, `bits_per_byte` and the entropies of
        the same bytes (`uniform`, `unigram`, `bigram`). The parts are empty if there was no validation.
        """
        found: dict[str, dict[str, float]] = {}
        at = 0
        rows = [row for row in self.metrics() if step is None or row["step"] <= step]
        for row in sorted(rows, key=lambda row: row["step"]):  # stable: the last row of a step is valid
            kind, _, rest = row["metric"].partition("/")
            figure, _, part = rest.partition("/")
            if kind in ("val", "baseline"):
                found.setdefault(part or "all", {})[figure] = row["value"]
                at = row["step"] if kind == "val" else at
        return at, {part: found[part] for part in sorted(found)}

    def results(self) -> dict[str, Any]:
        """Return results.json, which training writes; empty if there is none."""
        path = self.path / "results.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _is_complete(path: Path) -> bool:
    """Return whether a checkpoint without digests seems complete."""
    return zipfile.is_zipfile(path) if path.is_file() else any(path.iterdir())


def resolve(argument: str | Path) -> Run:
    """Return the run that a RUN argument names: a run directory, or one of its checkpoints. Raises `UserError`."""
    path = Path(argument)
    if path.name.endswith(".ckpt") and path.exists():
        return Run(path.absolute().parents[1], chosen=path)
    return Run(path)


def backbone_tensors(checkpoint: Path, merge: bool = True) -> "dict[str, Tensor]":
    """Return the backbone's tensors of a checkpoint, on the CPU, under transformers' names.

    LoRA is merged into the weights; with `merge` false its tensors are returned too. `checkpoint` is a file, or the
    directory that DeepSpeed or a sharded FSDP2 run writes. A file is opened without running code from it; a
    directory's pickles only if they name nothing but classes of these libraries. Raises `UserError` for a checkpoint
    that cannot be read or holds no backbone.
    """
    return (
        _merged_tensors(checkpoint, BACKBONE_PREFIX) if merge else stored_tensors(checkpoint, BACKBONE_PREFIX)
    )


def model_tensors(checkpoint: Path) -> "dict[str, Tensor]":
    """Return all tensors of the model in a checkpoint, by the names of `CrossModalT5`, LoRA merged."""
    return _merged_tensors(checkpoint, MODEL_PREFIX)


def lora_entries(run: Run) -> "dict[str, LoRA]":
    """Return `model.lora` of a run's recipe."""
    from kebyt5_xm.model.lora import LoRA

    entries = (run.config.get("model") or {}).get("lora") or {}
    return {name: LoRA(**entry) for name, entry in entries.items()}


def _merged_tensors(checkpoint: Path, prefix: str) -> "dict[str, Tensor]":
    stored = stored_tensors(checkpoint, prefix)
    if not any(".lora_A." in name for name in stored):
        return stored
    from kebyt5_xm.model.lora import merge_updates

    return merge_updates(stored, lora_entries(resolve(checkpoint)), prefix.removeprefix(MODEL_PREFIX))
