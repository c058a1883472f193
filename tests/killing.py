"""A callback that ends its own process, for tests of resuming."""

import os
import signal

import lightning.pytorch as pl


class KillAfter(pl.Callback):
    """Sends SIGKILL to its own process once micro-batch `micro_batch` of the run has been trained on."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx >= self.micro_batch:
            os.kill(os.getpid(), signal.SIGKILL)
