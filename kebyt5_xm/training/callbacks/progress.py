"""The progress bar of a run."""

import sys
from typing import ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from kebyt5_xm.data.batch import Batch


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
