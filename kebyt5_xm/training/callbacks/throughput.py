"""The speed of a run: bytes and floating-point operations per second, waiting for data, and memory of a GPU."""

import time

import lightning.pytorch as pl
import torch
from transformers import T5ForConditionalGeneration

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.model.flops import examples_flops, peak_flops, training_passes
from kebyt5_xm.training.loggers import is_log_step


class Throughput(pl.Callback):
    """Logs the speed of training alone, without validation. One byte is one id: of the inputs or of the targets.

    `train/bytes_per_second`: ids trained on, without padding, over all ranks.
    `train/tflops`: operations of the backbone (`kebyt5_xm.model.flops`) per second and device, in 10^12. Padding,
        recomputed activations and media encoders do not count.
    `train/mfu`: the same as a share of the device's peak, if that is known.
    `train/share_waiting_for_data`: of the time, the share in which the first rank waited for a batch.
    `train/memory_gb`: the most memory of a GPU that tensors took so far, in 10^9 bytes.

    All ranks are assumed to train on as many ids.
    """

    def __init__(self) -> None:
        self.ids = self.total_ids = 0
        self.seconds = self.total_seconds = 0.0
        self._since = 0.0
        self._flops = 0.0
        self._passes = 0.0
        self._waited = 0.0

    @property
    def bytes_per_second(self) -> float:
        """The rate since the start of the run, or since the last resume."""
        return self.total_ids / self.total_seconds if self.total_seconds else 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds, self._since = 0.0, time.perf_counter()  # a validation before training does not count
        self._passes = training_passes(_backbone(pl_module))
        self._waited = _seconds_waited(trainer)

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
        self._flops += examples_flops(_backbone(pl_module).config, batch.lengths, self._passes)
        if not batch.progress.ends_step or not is_log_step(trainer):
            return
        self._stop_clock()
        metrics = self._measure(trainer, pl_module.device)
        name = "train/bytes_per_second"
        pl_module.log(name, metrics[name], prog_bar=True, logger=False)
        for logger in trainer.loggers:  # `log` of Lightning would leave out the last step
            logger.log_metrics(metrics, batch.progress.step)
        self.total_ids, self.total_seconds = self.total_ids + self.ids, self.total_seconds + self.seconds
        self.ids, self.seconds, self._flops = 0, 0.0, 0.0

    def _measure(self, trainer: pl.Trainer, device: torch.device) -> dict[str, float]:
        """Return the metrics since the last log step."""
        rate, peak = self._flops / self.seconds, peak_flops(device)
        metrics = {"train/bytes_per_second": self.ids / self.seconds, "train/tflops": rate / 1e12}
        if peak is not None:
            metrics["train/mfu"] = rate / peak
        waited = _seconds_waited(trainer)
        metrics["train/share_waiting_for_data"] = (waited - self._waited) / self.seconds
        self._waited = waited
        if device.type == "cuda":
            metrics["train/memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
        return metrics

    def _stop_clock(self) -> None:
        now = time.perf_counter()
        self.seconds, self._since = self.seconds + now - self._since, now


def _backbone(pl_module: pl.LightningModule) -> T5ForConditionalGeneration:
    return pl_module.model.backbone  # pyright: ignore


def _seconds_waited(trainer: pl.Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.seconds_waited if isinstance(loader, Loader) else 0.0
