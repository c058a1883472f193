"""The loggers of a run: RUN/metrics.csv and RUN/tensorboard.

Lightning's CSVLogger deletes the file of an earlier start when a run is continued, and rewrites it when columns are
added. Rows of (step, metric, value) are only ever appended, and survive a kill.
"""

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from kebyt5_xm.model.finite import finite_figures

FIELDS = ("step", "metric", "value")
TENSORBOARD_FOLDER = "tensorboard"


def is_log_step(trainer: pl.Trainer) -> bool:
    """Say whether the metrics of the step that has just ended are logged: of every n-th step, and of the last."""
    every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
    return (every > 0 and trainer.global_step % every == 0) or trainer.global_step == trainer.max_steps


class MetricsLog(Logger):
    """Appends finite metrics to RUN/metrics.csv. NaN and infinities are only in RUN/incidents.jsonl.

    `step` is the number of optimizer steps trained, as in the names of checkpoints.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.path = run / "metrics.csv"

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> None:
        return None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        steps_trained = 0 if step is None else step + 1  # Lightning counts from zero
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(FIELDS)
            writer.writerows(
                (steps_trained, name, repr(value))
                for name, value in finite_figures(metrics).items()
                if name != "epoch"
            )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: RUN/config.yaml has the whole recipe."""


class StepsTrained(TensorBoardLogger):
    """Logs the number of steps trained, as the rest of a run does; Lightning counts from zero."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, None if step is None else step + 1)


def make_tensorboard_logger(run: Path, resumed_step: int | None = None) -> TensorBoardLogger:
    """Return the logger that writes to RUN/tensorboard.

    TensorBoard no longer shows points after `resumed_step`, the step of the checkpoint of a resumed run.
    """
    purge: dict[str, Any] = {} if resumed_step is None else {"purge_step": resumed_step + 1}
    return StepsTrained(save_dir=run, name=None, version=TENSORBOARD_FOLDER, **purge)


class NoTrace(Callback):
    """Deletes RUN/tensorboard's new file if an error comes before the first step, and folders that are then empty.

    Lightning opens every logger before it sets anything up, so a refused run would leave its folder behind.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._existing = set(run.glob(f"{TENSORBOARD_FOLDER}/*"))
        self._has_started = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._has_started = True

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._has_started or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.finalize("failed")  # writes what it has buffered
        folder = self._run / TENSORBOARD_FOLDER
        events = folder.glob(f"events.out.tfevents.*.{os.getpid()}.*")
        for path in {*events, folder / "hparams.yaml"} - self._existing:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # the folder is not empty
            folder.rmdir()
            self._run.rmdir()
