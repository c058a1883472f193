"""The progress of a run: throughput and the progress bar."""

import sys
import time
from typing import ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.training.loggers import is_log_step


class Throughput(pl.Callback):
    """Logs `train/bytes_per_second`: input and target ids trained on, without padding and validation.

    One id is one byte, a sentinel or an end of sequence. All ranks are assumed to train on as many ids.
    """

    def __init__(self) -> None:
        self.ids = self.total_ids = 0
        self.seconds = self.total_seconds = 0.0
        self._since = 0.0

    @property
    def bytes_per_second(self) -> float:
        """The rate since the start of the run, or since the last resume."""
        return self.total_ids / self.total_seconds if self.total_seconds else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds, self._since = 0.0, time.perf_counter()  # a validation before training does not count

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_clock()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self.ids += batch.num_ids * trainer.world_size
        if not batch.progress.ends_step or not is_log_step(trainer):
            return
        self._stop_clock()
        rate = self.ids / self.seconds
        pl_module.log("train/bytes_per_second", rate, prog_bar=True, logger=False)
        for logger in trainer.loggers:  # `log` of Lightning would leave out the last step
            logger.log_metrics({"train/bytes_per_second": rate}, batch.progress.step)
        self.total_ids, self.total_seconds = self.total_ids + self.ids, self.total_seconds + self.seconds
        self.ids, self.seconds = 0, 0.0

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now


class ProgressBar(TQDMProgressBar):
    """A bar of optimizer steps and time left, with short names: loss, bits per byte, kB per second.

    In a resumed run it starts at the step of the checkpoint; earlier steps do not count for the time left.
    """

    _SHORT: ClassVar = {"train/loss": "loss", "val/loss": "val", "val/bits_per_byte": "bits/byte"}

    def __init__(self) -> None:
        # A terminal shows a moving bar; a log file gets a line every 100 steps.
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 100)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: object) -> None:
        bar = self.train_progress_bar
        bar.reset()
        bar.total, bar.initial, bar.n = trainer.max_steps, trainer.global_step, trainer.global_step
        bar.set_description("steps")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        bar, step = self.train_progress_bar, trainer.global_step
        if batch.progress.ends_step and (step % self.refresh_rate == 0 or step == trainer.max_steps):
            bar.n = step
            bar.set_postfix(self.get_metrics(trainer, pl_module))

    def init_validation_tqdm(self) -> Tqdm:
        return Tqdm(disable=True)  # bars of all held-out parts would hide that of training

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        shown: dict[str, int | str | float | dict[str, float]] = {}
        for name, value in trainer.progress_bar_metrics.items():
            if name == "train/bytes_per_second":
                shown["kB/s"] = f"{float(value) / 1000:.1f}"
            else:
                shown[self._SHORT.get(name, name)] = f"{float(value):.3f}"
        return shown
