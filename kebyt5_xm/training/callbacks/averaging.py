"""The exponential moving average (EMA) of the weights that train: `ema` in a recipe.

Training goes on with the raw weights. Everything else takes the averages: validations with their answers and tables
of samples, the weights in checkpoints, and so exports and runs that start from this one.

Lightning's `EMAWeightAveraging` (2.6) copies frozen encoders too, calls `configure_model` a second time, and puts the
raw weights back before the tables of samples are written.
"""

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.averages import KEY


@dataclass
class Ema:
    """The moving average of the weights: `ema` in a recipe.

    Args:
        decay: of the averages at each update, after a warm-up.
        every_n_steps: optimizer steps from one update to the next.
        start_step: the averages begin with the weights after this many steps.
    """

    decay: float = 0.999
    every_n_steps: int = 1
    start_step: int = 0

    def check(self) -> None:
        """Raise `UserError` for values out of range. Not in `__post_init__`: parsers build instances on the way."""
        if not 0 < self.decay < 1:
            raise UserError(
                f"ema.decay is {self.decay:g}; expected more than 0 and less than 1, such as 0.999"
            )
        if self.every_n_steps < 1:
            raise UserError(f"ema.every_n_steps is {self.every_n_steps}; expected at least 1")
        if self.start_step < 0:
            raise UserError(f"ema.start_step is {self.start_step}; expected at least 0")

    def check_steps(self, max_steps: int) -> None:
        """Raise `UserError` if a run of so many optimizer steps (-1: any number) ends before the first update.

        Without an update its checkpoints would hold the raw weights, or those of `start_step`.
        """
        first = (self.start_step // self.every_n_steps + 1) * self.every_n_steps
        if 0 <= max_steps < first:
            raise UserError(
                f"ema has start_step {self.start_step} and every_n_steps {self.every_n_steps}, so the averages "
                f"change first at step {first}, expected at most trainer.max_steps, {max_steps}; lower them, or take "
                "ema out"
            )

    def decay_at(self, update: int) -> float:
        """Return the decay of the `update`-th update, counted from 1.

        With its warm-up, (1 + n) / (10 + n), short runs forget their first weights: TensorFlow's
        `ExponentialMovingAverage`, there with `num_updates`.
        """
        return min(self.decay, (1 + update) / (10 + update))


class Averaging(pl.Callback):
    """Updates the averages after optimizer steps, and lends them to the model for validations and checkpoints.

    It must be the first callback, so that others save and validate the averages of the present step. The averages
    stay in the model from the start of a validation until training goes on, for what other callbacks do at its end.

    Averages are kept in fp32, and only of parameters that train. Buffers, such as the statistics of batch norms, are
    the model's own. Raises `UserError` for strategies that shard weights.

    Attributes:
        updates: number of updates so far.
        averages: name -> average, empty before `start_step`.
    """

    def __init__(self, settings: Ema) -> None:
        settings.check()
        self.settings = settings
        self.updates = 0
        self.averages: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] = {}  # while the model has the averages

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse strategies, and runs that end before the first update, before weights are loaded."""
        if stage == "fit":
            self.settings.check_steps(trainer.max_steps)
        if is_sharding(trainer.strategy):
            raise UserError(
                f"ema averages whole weights, but {type(trainer.strategy).__name__} shards or flattens them; use one "
                "device or DDP, or take ema out"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        weights = trained_weights(pl_module)
        self.averages = {name: average.to(weights[name].device) for name, average in self.averages.items()}
        self._begin(trainer, pl_module)
        size = sum(weight.numel() for weight in weights.values())
        rank_zero_info(
            f"ema: averages {size:,} weights ({4 * size / 1e6:.1f} MB more on a rank); validations, checkpoints and "
            "exports take the averages"
        )

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
        """Let the averages begin, if it is time and they have not yet; return whether they did now."""
        if self.averages or trainer.global_step < self.settings.start_step:
            return False
        self.averages = {name: w.detach().float().clone() for name, w in trained_weights(pl_module).items()}
        return True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Put the raw weights back."""
        if self._raw:
            _fill(pl_module, self._raw)
            self._raw = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if not batch.progress.ends_step or self._begin(trainer, pl_module) or not self.averages:
            return
        if trainer.global_step % self.settings.every_n_steps == 0:
            self.updates += 1
            self._update(trained_weights(pl_module))

    def _update(self, weights: dict[str, nn.Parameter]) -> None:
        update = get_ema_multi_avg_fn(self.settings.decay_at(self.updates))
        averages = [self.averages[name] for name in weights]
        update(averages, [weight.detach().float() for weight in weights.values()], self.updates)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the averages into the model."""
        if self.averages and not self._raw:
            self._raw = {name: w.detach().clone() for name, w in trained_weights(pl_module).items()}
            _fill(pl_module, self.averages)

    # -- the checkpoint ----------------------------------------------------------------------------

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the averages as the model's weights, and the raw weights beside them."""
        if not self.averages:
            return
        weights, names = trained_weights(pl_module), _first_names(pl_module)
        raw = self._raw or {name: weight.detach() for name, weight in weights.items()}
        rounded = {name: average.to(raw[name].dtype) for name, average in self.averages.items()}
        checkpoint["state_dict"] |= {name: rounded[first] for name, first in names.items()}
        checkpoint[KEY] = {
            "updates": self.updates,
            "raw": {name: raw[first] for name, first in names.items()},
            "precise": {n: average for n, average in self.averages.items() if raw[n].dtype != average.dtype},
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the averages of a checkpoint that has them; otherwise they begin with its weights."""
        if KEY in checkpoint:
            self.updates = checkpoint[KEY]["updates"]
            averages = checkpoint[KEY]["averages"]
            self.averages = {name: averages[name].float().clone() for name in trained_weights(pl_module)}


def is_sharding(strategy: Strategy) -> bool:
    """Return whether a rank does not hold the weights whole and by name."""
    return isinstance(strategy, DeepSpeedStrategy | FSDPStrategy | ModelParallelStrategy)


def trained_weights(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return name -> parameter of those that train."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _first_names(module: nn.Module) -> dict[str, str]:
    """Return name -> first name of every weight that trains: tied weights have several in a `state_dict`."""
    first = {id(parameter): name for name, parameter in trained_weights(module).items()}
    return {n: first[id(p)] for n, p in module.named_parameters(remove_duplicate=False) if id(p) in first}


def _fill(module: nn.Module, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in trained_weights(module).items():
            parameter.copy_(values[name])
