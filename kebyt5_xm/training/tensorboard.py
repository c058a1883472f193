"""RUN/tensorboard: Lightning's logger, less the file that it makes of a run that never begins.

Lightning opens every logger before it sets anything up, so a run that is refused would leave its folder behind.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

FOLDER = "tensorboard"


class StepsTrained(TensorBoardLogger):
    """Counts steps as the rest of a run does, by how many are trained; Lightning counts from zero."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(metrics, None if step is None else step + 1)


def tensorboard(run: Path, resumed: int | None = None) -> TensorBoardLogger:
    """Return the logger that writes to RUN/tensorboard.

    In a run that is `resumed` from a step, points of later steps are no longer shown.
    """
    purge: dict[str, Any] = {} if resumed is None else {"purge_step": resumed + 1}
    return StepsTrained(save_dir=run, name=None, version=FOLDER, **purge)


class NoTrace(Callback):
    """Takes away the logger's file, and folders that are empty then, if an error comes before the first step."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._found = set(run.glob(f"{FOLDER}/*"))
        self._begun = False

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        self._begun = True

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._begun or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.finalize("failed")  # which writes what it has kept back
        written = self._run.glob(f"{FOLDER}/events.out.tfevents.*.{os.getpid()}.*")
        for path in {*written, self._run / FOLDER / "hparams.yaml"} - self._found:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is there
            (self._run / FOLDER).rmdir()
            self._run.rmdir()
