"""What `train.py fit` refuses before its first step; the doctor asks the same functions."""

import math
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.training import groups as parameter_groups

if TYPE_CHECKING:
    from kebyt5_xm.data.datamodule import DataModule
    from kebyt5_xm.training.task import Task

HIGHEST_RATE = 1.0
"""Of optimizers whose updates have a scale of their own (Adam's are near 1, Adafactor's and RMS-scaled AdamW's near
the weights' own): with more, a step leaves nothing of a weight. SGD's follow the gradient and have no such bound."""


def check_steps(data: "DataModule", max_steps: int, accumulation: int, world_size: int) -> None:
    """Raise `UserError` where steps cannot be made of the global batch, or the sources end before the run.

    Args:
        data: connected.
        max_steps, accumulation: `trainer.max_steps` and `trainer.accumulate_grad_batches` as given.
        world_size: number of ranks.
    """
    if max_steps < 1:
        raise UserError(f"trainer.max_steps is {max_steps}; expected the number of optimizer steps")
    if accumulation != 1:
        raise UserError(
            f"trainer.accumulate_grad_batches is {accumulation}; leave it out, it follows from "
            "data.global_batch_size and data.micro_batch_size"
        )
    if data.micro_batch_size < 1:
        raise UserError(f"data.micro_batch_size is {data.micro_batch_size}; expected at least 1")
    if data.budget is None:
        round_size = data.micro_batch_size * world_size
        if data.global_batch_size < 1 or data.global_batch_size % round_size:
            raise UserError(
                f"data.global_batch_size {data.global_batch_size} is not a multiple of data.micro_batch_size "
                f"{data.micro_batch_size} x {world_size} ranks; change one of them"
            )
    elif data.steps.num_micro_batches % world_size:
        raise UserError(
            f"data.budget makes {data.steps.num_micro_batches} micro-batches a step, which {world_size} ranks "
            "cannot share evenly; change global_length or micro_length"
        )
    done = data.steps.count(max_steps)
    if done < max_steps:
        raise UserError(
            f"trainer.max_steps is {max_steps}, but the sources end after {done} whole steps; set it to {done}, or "
            "`epochs` of a source higher, or to null"
        )


def check_monitor(monitor: str, data: "DataModule") -> None:
    """Raise `UserError` for a `monitor` that no validation of the connected `data` logs."""
    parts = ["", *(f"/{name}" for name in data.validation.names)]
    known = [
        f"val/{metric.name}/{name}" for name, source in data.sources.items() for metric in source.metrics
    ]
    known += [f"val/{figure}{part}" for figure in ("bits_per_byte", "loss") for part in parts]
    if monitor not in known:
        raise UserError(
            f"monitor is '{monitor}', which no validation of this run logs; expected one of {', '.join(known)}"
            f"{did_you_mean(monitor, known)}"
        )


def optimization(task: "Task", model: nn.Module, max_steps: int) -> tuple[Optimizer, LRScheduler | None]:
    """Return the optimizer and the schedule of a run over `model`. Raises `UserError` for what they cannot be."""
    entries = parameter_groups.optimizer_groups(task.building.groups, model.named_parameters())
    try:
        optimizer = task.optimizer(entries)
    except UserError:
        raise
    except (TypeError, ValueError) as error:  # torch's own word on a negative rate, a beta of 2
        raise UserError(f"model.optimizer: {' '.join(str(error).split())}; correct its init_args") from error
    parameter_groups.scale_rates(optimizer)
    _check_rates(optimizer)
    return optimizer, task.schedule(optimizer, max_steps) if task.schedule is not None else None


def _check_rates(optimizer: Optimizer) -> None:
    highest = math.inf if isinstance(optimizer, SGD) else HIGHEST_RATE
    for group in optimizer.param_groups:
        rate = group.get("lr")
        if rate is not None and not 0 <= float(rate) <= min(highest, 1e30):
            name = group.get("name", parameter_groups.DEFAULT)
            raise UserError(
                f"found a learning rate of {float(rate):g} in the group '{name}', expected 0 to {highest:g} with "
                f"{type(optimizer).__name__}; lower model.optimizer.init_args.lr, or that of model.groups"
            )
