"""Callbacks and a source that kill processes, fill disks or stall readers, for tests of faults and resuming."""

import errno
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import psutil
import torch
from torch.utils.data import get_worker_info

from kebyt5_xm.data import Manifest
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.model.runs import checkpoint_folders


class KillAfter(pl.Callback):
    """Sends SIGKILL to its own process after micro-batch `micro_batch` of the run."""

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
    """Sends a signal to the processes of `ranks` after micro-batch `micro_batch`.

    Data workers get it too: terminals, torchrun and clusters signal a whole group of processes.
    """

    def __init__(self, micro_batch: int, ranks: list[int], name: str = "SIGTERM") -> None:
        self.micro_batch = micro_batch
        self.ranks = ranks
        self.signal = signal.Signals[name]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if (
            trainer.global_rank in self.ranks
            and trainer.fit_loop.epoch_loop.total_batch_idx == self.micro_batch
        ):
            group = [os.getpid(), *(worker.pid for worker in psutil.Process().children())]
            # Sent by another process: a signal from the run itself would be meant for that worker alone.
            subprocess.run(["kill", f"-{self.signal.value}", *map(str, group)], check=True)


class TakeFolder(pl.Callback):
    """Writes RUN/config.yaml between the check of the run directory and training, as a concurrent run would."""

    def on_fit_start(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "config.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("another: run\n")


class FullDisk(pl.Callback):
    """Raises ENOSPC for the digests of checkpoint folders from `step` on."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            checkpoint_folders.write_folder_digests = _no_room


def _no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


class Faulty(Manifest):
    """Kills or stalls its data worker when example `at` of the run or a later one is drawn, if `marker` exists.

    `fault` is "kill", or "stall" for a read that never ends. The file `marker` is deleted, so that a continued run
    has no fault.
    """

    def __init__(self, path: str, prompt: str, target: str, fault: str, at: int, marker: str) -> None:
        super().__init__(path, prompt, target)
        self.fault = fault
        self.at = at
        self.marker = Path(marker)

    def load(self, selection: Selection) -> list[Example]:
        if get_worker_info() is not None and selection.index.max() >= self.at and self.marker.exists():
            self.marker.unlink()
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            threading.Event().wait()
        return super().load(selection)


class Poison(pl.Callback):
    """Makes the logits NaN on `ranks`, in the training steps that follow the numbers of trained steps in `steps`."""

    def __init__(self, steps: list[int], ranks: list[int]) -> None:
        self.steps = steps
        self.ranks = ranks

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def spoil(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            bad = trainer.training and trainer.global_step in self.steps and trainer.global_rank in self.ranks
            return output * float("nan") if bad else output

        pl_module.model.backbone.lm_head.register_forward_hook(spoil)  # pyright: ignore


class SpoilWeight(pl.Callback):
    """Makes a weight infinite after `step` steps, before a checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        if trainer.global_step == self.step:
            with torch.no_grad():
                next(pl_module.parameters()).flatten()[-1] = float("inf")


def die_before(call: int, *names: str) -> None:
    """Kill this process right before the `call`-th call of these functions of `os`."""
    calls = 0

    def counted(function: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return run

    for name in names:
        setattr(os, name, counted(getattr(os, name)))
