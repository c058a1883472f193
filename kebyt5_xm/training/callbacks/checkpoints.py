"""Checkpoints of a run: the newest ones by step, and the last state when training ends."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.model.runs.checkpoint_io import remove_unfinished
from kebyt5_xm.training.fit_checks import check_monitor

KEEP = 2
"""Newest checkpoints kept: one to continue from, and the one before it in case that one is damaged."""


class Newest(pl.Callback):
    """Writes FOLDER/step=N.ckpt every `every` optimizer steps and at the end, and keeps the newest `KEEP`.

    N is the number of optimizer steps trained; checkpoints lie on step boundaries, never inside an accumulation.
    """

    def __init__(self, folder: Path, every: int) -> None:
        self.folder = folder
        self.every = every
        self.written: list[Path] = []
        self._saved_step = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            remove_unfinished(self.folder)
        trainer.strategy.barrier()
        self.written = sorted(self.folder.glob("step=*.ckpt"), key=_step)  # of the run's earlier life

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if batch.progress.ends_step and trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: pl.Trainer, prune: bool = True) -> None:
        """Write a checkpoint of the present step, unless there is one. All ranks call it.

        The oldest is removed then, if it is told to `prune`.
        """
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if trainer.global_step == self._saved_step:
            return
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step = trainer.global_step
        self.written = [*(other for other in self.written if other != path), path]
        while prune and len(self.written) > KEEP:
            trainer.strategy.remove_checkpoint(self.written.pop(0))


class Best(ModelCheckpoint):
    """Keeps FOLDER/best.ckpt, the best by `monitor`: the lowest, or the highest of a metric that should be high."""

    def __init__(self, folder: Path, monitor: str, data: DataModule) -> None:
        metrics = {
            f"val/{metric.name}/{name}": metric
            for name, source in data.sources.items()
            for metric in source.metrics
        }
        chosen = metrics.get(monitor)
        mode = "max" if chosen is not None and chosen.higher_is_better else "min"
        self.data = data
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget a best that is no longer there: it was of steps that have been set aside."""
        super().on_train_start(trainer, pl_module)
        assert self.dirpath is not None
        there = Path(self.dirpath, "best.ckpt").exists()
        if not trainer.strategy.broadcast(there):
            self.best_k_models.clear()
            self.best_model_path = self.kth_best_model_path = ""
            self.best_model_score = self.kth_value = self.current_score = None  # pyright: ignore

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Say whether a figure is the best so far; NaN and infinities never are."""
        known = current is not None and bool(torch.isfinite(torch.as_tensor(current)))
        return known and super().check_monitor_top_k(trainer, current)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise `UserError` for a monitor that no validation logs, before weights are loaded."""
        super().setup(trainer, pl_module, stage)
        assert self.monitor is not None
        check_monitor(self.monitor, self.data)


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step="))
