"""SIGTERM, which clusters send before they stop a machine, and Ctrl-C: save, and end with the signal's exit code.

Lightning (2.6) saves nothing, or stops one rank alone, for which the others then wait. Here all ranks stop together.
"""

import os
import signal
from types import FrameType

import lightning.pytorch as pl
import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.training.callbacks.checkpoints import Newest

SIGNAL_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class Terminated(Exception):
    """Training ended because of signal `number`, after it was saved at `step`."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(
            f"{SIGNAL_WORDS[signal.Signals(number)]}: saved at step {step}; continue with --ckpt_path last"
        )
        self.exit_code = 128 + number
        """The exit code that shells report for a process ended by the signal."""


class SaveOnTerminate(pl.Callback):
    """Saves at the end of the optimizer step in which any rank receives a signal, and raises `Terminated` on all.

    A second signal ends its process at once, as usual.
    """

    def __init__(self, newest: Newest) -> None:
        self.newest = newest
        self._received = 0
        self._prints = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._prints = trainer.is_global_zero
        # Replaces Lightning's handlers, which are set by now.
        self._before = {number: signal.signal(number, self._receive) for number in SIGNAL_WORDS}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        for other in SIGNAL_WORDS:
            signal.signal(other, signal.SIG_DFL)
        if self._prints:  # not `print`, which the signal may have interrupted
            word = SIGNAL_WORDS[signal.Signals(number)]
            os.write(
                2, f"\n{word}: saving at the end of this step; a second signal ends it at once\n".encode()
            )

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:  # inside a step
            return
        received = self._received_anywhere(trainer)
        if received:
            self.newest.save(trainer)
            raise Terminated(received, trainer.global_step)

    def _received_anywhere(self, trainer: pl.Trainer) -> int:
        """Return the signal that any rank has received, 0 if none has. One rank alone does not wait for its GPU."""
        if trainer.world_size == 1:
            return self._received
        received = torch.tensor(float(self._received), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        return int(received)
