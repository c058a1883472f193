"""Checkpoints of a run: the newest by step, the last state when training ends, and the best by a metric."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.metric import Metric
from kebyt5_xm.model.runs.checkpoint_io import remove_unfinished

MAX_KEPT = 2
"""Newest checkpoints that are kept: one to continue from, and the one before in case the first is damaged."""


class Newest(pl.Callback):
    """Writes FOLDER/step=N.ckpt every `every` optimizer steps and at the end, and keeps the newest `MAX_KEPT`.

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
        self.written = sorted(self.folder.glob("step=*.ckpt"), key=_step)  # of earlier starts of the run

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

        With `prune`, the oldest checkpoints are then removed.
        """
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if trainer.global_step == self._saved_step:
            return
        trainer.save_checkpoint(path, weights_only=False)
        self._saved_step = trainer.global_step
        self.written = [*(other for other in self.written if other != path), path]
        while prune and len(self.written) > MAX_KEPT:
            trainer.strategy.remove_checkpoint(self.written.pop(0))


class Best(ModelCheckpoint):
    """Keeps FOLDER/best.ckpt, the best by `monitor`: the lowest, or the highest of a metric that should be high."""

    def __init__(self, folder: Path, monitor: str, data: DataModule) -> None:
        chosen = _metrics_by_name(data).get(monitor)
        mode = "max" if chosen is not None and chosen.higher_is_better else "min"
        self.data = data
        super().__init__(folder, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget a best checkpoint that is no longer there, because its steps have been set aside."""
        super().on_train_start(trainer, pl_module)
        assert self.dirpath is not None
        exists = Path(self.dirpath, "best.ckpt").exists()
        if not trainer.strategy.broadcast(exists):
            self.best_k_models.clear()
            self.best_model_path = self.kth_best_model_path = ""
            self.best_model_score = self.kth_value = self.current_score = None  # pyright: ignore

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Say whether a value is the best so far; NaN and infinities never are."""
        is_finite = current is not None and bool(torch.isfinite(torch.as_tensor(current)))
        return is_finite and super().check_monitor_top_k(trainer, current)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise `UserError` for a monitor that no validation logs, before weights are loaded."""
        super().setup(trainer, pl_module, stage)
        assert self.monitor is not None
        check_monitor(self.monitor, self.data)


def check_monitor(monitor: str, data: DataModule) -> None:
    """Raise `UserError` for a `monitor` that no validation of the connected `data` logs."""
    parts = ["", *(f"/{name}" for name in data.validation.names)]
    known = [
        *_metrics_by_name(data),
        *(f"val/{metric}{part}" for metric in ("bits_per_byte", "loss") for part in parts),
    ]
    if monitor not in known:
        raise UserError(
            f"monitor is '{monitor}', which no validation of this run logs; expected one of {', '.join(known)}"
            f"{did_you_mean(monitor, known)}"
        )


def _metrics_by_name(data: DataModule) -> dict[str, Metric]:
    """Return the metrics of written answers by the names under which validations log them."""
    return {
        f"val/{metric.name}/{name}": metric
        for name, source in data.sources.items()
        for metric in source.metrics
    }


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step="))
