"""SIGTERM, as clusters send it before they take a machine back: save, and end with a code that says so.

Lightning's own handling stops a rank by itself, for which the others then wait (2.6); here all ranks agree first.
"""

import signal
from types import FrameType

import lightning.pytorch as pl
import torch

from kebyt5_xm.checkpoints import Newest
from kebyt5_xm.data.batch import Batch

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell reports of a process that SIGTERM has ended."""


class Terminated(Exception):
    """Training ended for a SIGTERM, after it was saved at `step`."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class SaveOnTerminate(pl.Callback):
    """Saves at the end of the optimizer step in which any rank was sent SIGTERM, and raises `Terminated` on all.

    A second SIGTERM ends its process at once, as it would without this.
    """

    def __init__(self, newest: Newest) -> None:
        self.newest = newest
        self._received = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._before = signal.signal(signal.SIGTERM, self._receive)  # instead of Lightning's, set by now

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        if (
            batch_idx % trainer.accumulate_grad_batches
        ):  # inside a step; its end is logged before this is called
            return
        received = torch.tensor(float(self._received), device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(received, op=torch.distributed.ReduceOp.MAX)
        if received > 0:
            self.newest.save(trainer)
            raise Terminated(trainer.global_step)
