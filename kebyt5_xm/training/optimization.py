"""The optimizer and the schedule of a run: built from the recipe, checked, and restored from a checkpoint."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DeepSpeedStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError
from kebyt5_xm.optimizers import is_elementwise
from kebyt5_xm.training import groups as parameter_groups
from kebyt5_xm.training import resuming
from kebyt5_xm.training.groups import Group
from kebyt5_xm.training.memory import estimate_memory
from kebyt5_xm.training.resuming import OptimizerOptions
from kebyt5_xm.training.sharding import sharding_of

OptimizerFactory = Callable[[Iterable], Optimizer]
ScheduleFactory = Callable[[Optimizer, int], LRScheduler]

MAX_RATE = 1.0
"""The highest learning rate of an optimizer whose updates have their own scale: about 1 for Adam, about that of the
weights for Adafactor and RMS-scaled AdamW. With a higher rate, one step erases a weight. SGD's updates follow the
gradient and have no such limit."""


class Optimization:
    """Builds the optimizer and the schedule of a run, and applies the recipe's changes when a run is resumed.

    Args:
        optimizer: makes the optimizer from parameter groups.
        schedule: makes the schedule from the optimizer and the number of steps; None for a constant rate.
        groups: `model.groups` of the recipe.
    """

    def __init__(
        self, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, groups: dict[str, Group]
    ) -> None:
        self.optimizer = optimizer
        self.schedule = schedule
        self.groups = groups
        self._options: OptimizerOptions | None = None
        self._checkpoint_options: OptimizerOptions | None = None

    def build(self, model: nn.Module, max_steps: int) -> tuple[Optimizer, LRScheduler | None]:
        """Return the optimizer and the schedule for `model`. Raises `UserError` for options that they refuse."""
        entries = parameter_groups.make_optimizer_groups(self.groups, model.named_parameters())
        try:
            optimizer = self.optimizer(entries)
        except UserError:
            raise
        except (TypeError, ValueError) as error:  # torch refuses a negative rate or a beta of 2
            raise UserError(
                f"model.optimizer: {' '.join(str(error).split())}; correct its init_args"
            ) from error
        parameter_groups.scale_rates(optimizer)
        _check_rates(optimizer)
        return optimizer, self.schedule(optimizer, max_steps) if self.schedule is not None else None

    def configure(self, model: nn.Module, trainer: pl.Trainer) -> Any:
        """Return what Lightning's `configure_optimizers` must return, and print what trains and its memory."""
        optimizer, schedule = self.build(model, trainer.max_steps)
        if isinstance(trainer.strategy, DeepSpeedStrategy) and not is_elementwise(optimizer):
            raise UserError(
                f"{type(optimizer).__name__} needs whole matrices, but DeepSpeed ZeRO hands an optimizer flat "
                "partitions; use torch.optim.AdamW, or DDP or FSDP2 instead of DeepSpeed"
            )
        if (
            isinstance(trainer.strategy, DeepSpeedStrategy)
            and getattr(model, "draft_heads", None) is not None
        ):
            raise UserError(
                "model.draft_heads is set, but under DeepSpeed's flat partitions the heads change the model's own "
                "training; use DDP or FSDP2, or train the heads later with model.backbone.frozen"
            )
        num_frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        rank_zero_info(parameter_groups.format_table(optimizer.param_groups, num_frozen))
        rank_zero_info(estimate_memory(model, self.optimizer, sharding_of(trainer.strategy)))
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._options = OptimizerOptions.of(optimizer, names, schedule)
        self._check_options(schedule)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the recipe's options into a checkpoint."""
        if self._options is not None:
            checkpoint[resuming.KEY] = self._options.as_dict()

    def load(self, checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
        """Read the options of the checkpoint's recipe. Raises `UserError` if this recipe cannot continue it."""
        if resuming.KEY in checkpoint:
            self._checkpoint_options = OptimizerOptions(**checkpoint[resuming.KEY])
            self._check_options(_schedule_of(trainer))

    def apply_changes(self, trainer: pl.Trainer) -> None:
        """Apply options that the recipe has changed since the checkpoint to the restored optimizer."""
        if not trainer.global_step or self._options is None:
            return
        optimizer, schedule = trainer.optimizers[0], _schedule_of(trainer)
        before = self._checkpoint_options or resuming.read_options(optimizer, self._options)
        changes = resuming.apply_options(before, self._options, optimizer, schedule, trainer.global_step)
        if changes:
            rank_zero_info(f"changed since the checkpoint: {'; '.join(changes)}")

    def _check_options(self, schedule: LRScheduler | None) -> None:
        if self._options is not None and self._checkpoint_options is not None:
            resuming.check_options(self._checkpoint_options, self._options, schedule)


def _schedule_of(trainer: pl.Trainer) -> LRScheduler | None:
    configs = trainer.lr_scheduler_configs
    return configs[0].scheduler if configs else None  # pyright: ignore[reportReturnType]


def _check_rates(optimizer: Optimizer) -> None:
    highest = math.inf if isinstance(optimizer, SGD) else MAX_RATE
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if rate is not None and not 0 <= float(rate) <= min(highest, 1e30):
            name = group.get("name", parameter_groups.DEFAULT)
            raise UserError(
                f"found a learning rate of {float(rate):g} in the group '{name}', expected 0 to {highest:g} with "
                f"{type(optimizer).__name__}; lower model.optimizer.init_args.lr, or that of model.groups"
            )
