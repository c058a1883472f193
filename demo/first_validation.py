"""A validation before the first step, so that a run records where it started from."""

import lightning.pytorch as pl


class FirstValidation(pl.Callback):
    """Validates at step 0: its figures are in RUN/metrics.csv, its samples in RUN/samples/step=0.md.

    A run that is resumed is past it.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            # As Lightning's own loop does it between two steps (2.6, _TrainingEpochLoop.on_advance_end).
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
