"""RUN/tensorboard: Lightning's logger, less the file that it makes of a run that never begins.

Lightning opens every logger before it sets anything up, so a run that is refused would leave its folder behind.
"""

import os
from contextlib import suppress
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

FOLDER = "tensorboard"


def tensorboard(run: Path) -> TensorBoardLogger:
    """Return the logger that writes to RUN/tensorboard."""
    return TensorBoardLogger(save_dir=run, name=None, version=FOLDER)


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
