"""Callbacks that end their own process, or its saving, for tests of resuming."""

import errno
import os
import signal

import lightning.pytorch as pl

from kebyt5_xm import checkpoint_folders


class KillAfter(pl.Callback):
    """Sends SIGKILL to its own process once micro-batch `micro_batch` of the run has been trained on."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx >= self.micro_batch:
            os.kill(os.getpid(), signal.SIGKILL)


class KillInValidation(pl.Callback):
    """Sends SIGKILL to its own process in the validation after `step` optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_start(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class TerminateAfter(pl.Callback):
    """Sends SIGTERM to its own process on the ranks named, once, when `micro_batch` has been trained on."""

    def __init__(self, micro_batch: int, ranks: list[int]) -> None:
        self.micro_batch = micro_batch
        self.ranks = ranks

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if (
            trainer.global_rank in self.ranks
            and trainer.fit_loop.epoch_loop.total_batch_idx == self.micro_batch
        ):
            os.kill(os.getpid(), signal.SIGTERM)


class FullDisk(pl.Callback):
    """On its first rank, has no room left for the digests of a checkpoint folder from `step` on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            checkpoint_folders.write_folder_digests = _no_room


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
