"""Validation: its metrics, and the validations that Lightning (2.6) does not run by itself."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.evaluation.judging import Judging, write_answers
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.model.outputs import Outputs


class ValidationScores:
    """Collects the losses and the written answers of one validation.

    Answers are judged by the metrics of their source. In training, they are also written to RUN/predictions.
    """

    def __init__(self, data: DataModule, trainer: pl.Trainer, device: torch.device) -> None:
        self._data = data
        self._trainer = trainer
        self._tally = Tally(len(data.validation), device)
        self._judging = Judging(data, trainer.world_size)

    def add(self, model: CrossModalT5, batch: Batch, output: Outputs, part: int) -> None:
        """Add a batch of a held-out part, with the model's output for it."""
        self._tally.add(batch, token_losses(output.logits, batch.labels))
        self._judging.answer(model, part, batch, output)

    def metrics(self) -> dict[str, float]:
        """Return the metrics over all ranks, by the names under which they are logged. All ranks call it."""
        parts, whole = self._tally.totals(self._trainer.strategy)
        metrics = {}
        for name, part in zip(self._data.validation.names, parts, strict=True):
            if part.bytes:  # no example could be made otherwise
                metrics |= {f"val/loss/{name}": part.loss, f"val/bits_per_byte/{name}": part.bits_per_byte}
        if whole.bytes:
            metrics |= {"val/loss": whole.loss, "val/bits_per_byte": whole.bits_per_byte}
        judged = self._judging.judge()
        for part in judged:
            metrics |= {f"val/{metric}/{part.name}": value for metric, value in part.values().items()}
        if judged and self._trainer.is_global_zero and self._trainer.state.fn == "fit":
            folder = Path(self._trainer.default_root_dir) / "predictions"
            write_answers(judged, folder / f"step={self._trainer.global_step}.jsonl")
        return metrics


class Validations(pl.Callback):
    """Validates at the end of a run, and in a resumed run whose last validation was interrupted by a kill.

    Checkpoints are written before the validation of their step, but Lightning assumes that it is done.
    """

    def __init__(self) -> None:
        self._validated_step = -1

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated_step = state_dict["validated"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._validated_step = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > 0 and self._validated_step != trainer.global_step and is_due(trainer):
            validate(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.enable_validation and self._validated_step != trainer.global_step:
            validate(trainer)


def is_due(trainer: pl.Trainer) -> bool:
    """Say whether the recipe has a validation after the present step."""
    every = trainer.val_check_batch  # in micro-batches; None if validations follow the clock
    batches = trainer.global_step * trainer.accumulate_grad_batches
    return trainer.enable_validation and isinstance(every, int) and batches % every == 0


def validate(trainer: pl.Trainer) -> None:
    """Run the validation loop between two steps, as Lightning's training loop does it (2.6)."""
    epoch_loop = trainer.fit_loop.epoch_loop
    first_loop_iter = trainer._logger_connector._first_loop_iter
    # Loggers count steps from zero: N - 1 after N steps, so -1 before the first.
    epoch_loop._batches_that_stepped = trainer.global_step - 1
    epoch_loop.val_loop.restarting = False
    trainer.validating = True
    epoch_loop.val_loop.run()
    trainer.training = True
    trainer._logger_connector._first_loop_iter = first_loop_iter
    epoch_loop._batches_that_stepped = trainer.global_step
