"""A validation before the first step, so that a run records where it started from."""

import lightning.pytorch as pl


class FirstValidation(pl.Callback):
    """Validates at step 0: its figures are in RUN/metrics.csv, its samples in RUN/samples/step=0.md.

    A run that is resumed is past it.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step > 0:
            return
        epoch_loop = trainer.fit_loop.epoch_loop
        # Loggers are told the step counted from zero, N - 1 after N steps; so it is -1 before the first.
        epoch_loop._batches_that_stepped = -1
        trainer.validating = True  # as Lightning's own loop does it between two steps (2.6)
        epoch_loop.val_loop.run()
        trainer.training = True
        epoch_loop._batches_that_stepped = 0
