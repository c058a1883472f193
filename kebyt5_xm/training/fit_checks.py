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
    entries = parameter_groups.make_optimizer_groups(task.builder.groups, model.named_parameters())
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
