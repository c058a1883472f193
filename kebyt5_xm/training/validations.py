"""Validations that Lightning (2.6) does not run: one that a kill has cost, and the one at the end of a run."""

from typing import Any

import lightning.pytorch as pl


class Validations(pl.Callback):
    """Makes up for a validation between whose checkpoint and whose end a run was killed, and validates at the end.

    Lightning takes the validation of a checkpoint's step for done, although checkpoints are written before it.
    """

    def __init__(self) -> None:
        self._validated = -1  # the last step that was

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validated = state_dict["validated"]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._validated = trainer.global_step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > 0 and self._validated != trainer.global_step and is_due(trainer):
            validate(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.enable_validation and self._validated != trainer.global_step:
            validate(trainer)


def is_due(trainer: pl.Trainer) -> bool:
    """Say whether the recipe has a validation at the present step."""
    every = trainer.val_check_batch  # in micro-batches; None where validations follow the clock
    batches = trainer.global_step * trainer.accumulate_grad_batches
    return trainer.enable_validation and isinstance(every, int) and batches % every == 0


def validate(trainer: pl.Trainer) -> None:
    """Run the validation loop between two steps, as Lightning's own loop does it (2.6)."""
    epoch_loop = trainer.fit_loop.epoch_loop
    first_loop_iter = trainer._logger_connector._first_loop_iter
    # Loggers are told the step counted from zero, N - 1 after N steps; so it is -1 before the first.
    epoch_loop._batches_that_stepped = trainer.global_step - 1
    epoch_loop.val_loop.restarting = False
    trainer.validating = True
    epoch_loop.val_loop.run()
    trainer.training = True
    trainer._logger_connector._first_loop_iter = first_loop_iter
    epoch_loop._batches_that_stepped = trainer.global_step
