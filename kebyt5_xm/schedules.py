"""Learning-rate schedules over optimizer steps, as factors on the learning rate of each group.

In a recipe: `schedule: {class_path: kebyt5_xm.schedules.Cosine, init_args: {warmup_steps: 1000}}`; the task
calls the class with the optimizer and the run's number of optimizer steps.
"""

import math
from abc import abstractmethod
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError


class Schedule(LRScheduler):
    """A factor on the learning rate for each optimizer step, computed from the step number only.

    total_steps: optimizer steps of the whole run. warmup_steps: the number of warm-up steps among them.
    A checkpoint holds only the position. The shape comes from the configuration, so a run resumed with more steps
    follows the longer schedule.
    Raises UserError if the warm-up is negative or longer than the run.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int):
        if total_steps < 1:
            raise UserError(f"found total_steps={total_steps}, expected at least 1; set trainer.max_steps")
        if not 0 <= warmup_steps <= total_steps:
            raise UserError(
                f"found warmup_steps={warmup_steps} in a run of {total_steps} optimizer steps, "
                f"expected 0 to {total_steps}; lower warmup_steps or raise trainer.max_steps"
            )
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        super().__init__(optimizer)

    @abstractmethod
    def factor(self, step: int) -> float:
        """Return the factor on the learning rate of the `step`-th optimizer step, counted from 1."""

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of each group for the next optimizer step."""
        factor = self.factor(self.last_epoch + 1)  # torch calls the number of finished steps last_epoch
        return [float(lr) * factor for lr in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the learning rates, but not the shape."""
        return {
            "last_epoch": self.last_epoch,
            "_step_count": self._step_count,
            "base_lrs": self.base_lrs,
            "_last_lr": self.get_last_lr(),
        }

    def _warmup(self, step: int) -> float:
        return min(1.0, step / max(1, self.warmup_steps))


class Constant(Schedule):
    """The full learning rate, after a linear warm-up if there is one."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_steps: int = 0):
        super().__init__(optimizer, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        """Return `min(1, step / warmup_steps)`."""
        return self._warmup(step)


class Cosine(Schedule):
    """A linear warm-up, then half a cosine down to `final_fraction` of the learning rate at the last step.

    final_fraction: 0.1, as Hoffmann et al. 2022 (section 3.1) decay by a factor of ten over exactly the run.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_steps: int, final_fraction: float = 0.1
    ):
        if not 0 <= final_fraction <= 1:
            raise UserError(f"found final_fraction={final_fraction}, expected 0 to 1; correct it")
        self.final_fraction = final_fraction
        super().__init__(optimizer, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        """Return the warm-up's or the cosine's value; after the last step it stays at `final_fraction`."""
        if step <= self.warmup_steps:
            return self._warmup(step)
        decay_steps = max(1, self.total_steps - self.warmup_steps)  # the whole run may be warm-up
        progress = min(1.0, (step - self.warmup_steps) / decay_steps)
        return self.final_fraction + (1 - self.final_fraction) * 0.5 * (1 + math.cos(math.pi * progress))


class WarmupStableDecay(Schedule):
    """A linear warm-up, the full learning rate, then a decay over the last `decay_fraction` of the run.

    A run that is resumed with more steps from a checkpoint before its decay equals one that had them from the start.

    decay_fraction: 0.2 and the shape `1-sqrt` are of Hägele et al. 2024, where the n-th of d steps of decay has
    1 - sqrt((n - 1) / d); `linear` has 1 - (n - 1) / d. Hu et al. 2024 (MiniCPM) decay over 0.1.
    final_fraction: of the learning rate, to which it decays; 0 as there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int,
        decay_fraction: float = 0.2,
        shape: Literal["1-sqrt", "linear"] = "1-sqrt",
        final_fraction: float = 0.0,
    ):
        for name, value in (("decay_fraction", decay_fraction), ("final_fraction", final_fraction)):
            if not 0 <= value <= 1:
                raise UserError(f"found {name}={value}, expected 0 to 1; correct it")
        self.decay_steps = round(decay_fraction * total_steps)
        if warmup_steps + self.decay_steps > total_steps:
            raise UserError(
                f"found warmup_steps={warmup_steps} and a decay over {self.decay_steps} of {total_steps} optimizer "
                "steps, expected that both fit; lower warmup_steps or decay_fraction"
            )
        self.decay_fraction = decay_fraction
        self.shape = shape
        self.final_fraction = final_fraction
        super().__init__(optimizer, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        """Return the value of the warm-up, 1, or that of the decay; `final_fraction` after the last step."""
        done = step - 1 - (self.total_steps - self.decay_steps)
        if done < 0:
            return self._warmup(step)
        progress = min(1.0, done / self.decay_steps) if self.decay_steps else 1.0
        fallen = math.sqrt(progress) if self.shape == "1-sqrt" else progress
        return 1 - (1 - self.final_fraction) * fallen


class InverseSquareRoot(Schedule):
    """T5's schedule: `lr * sqrt(warmup_steps / max(step, warmup_steps))`, constant while it warms up.

    T5 and ByT5 (Raffel et al. 2020, section 3.1.2: 1 / sqrt(max(n, k)) with k = 10,000) are this with lr 0.01
    and warmup_steps 10,000. The published schedule has no linear warm-up; `warmup="linear"` adds one (Vaswani et al.
    2017, equation 3) for optimizers that need it.
    total_steps only limits warmup_steps: the schedule has no end.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int,
        warmup: Literal["constant", "linear"] = "constant",
    ):
        if warmup_steps < 1:
            raise UserError(
                f"found warmup_steps={warmup_steps} for InverseSquareRoot, expected at least 1: "
                "it is the step from which the learning rate falls"
            )
        self.warmup = warmup
        super().__init__(optimizer, total_steps, warmup_steps)

    def factor(self, step: int) -> float:
        """Return the warm-up's value, then `sqrt(warmup_steps / step)`."""
        if step <= self.warmup_steps:
            return self._warmup(step) if self.warmup == "linear" else 1.0
        return math.sqrt(self.warmup_steps / step)
