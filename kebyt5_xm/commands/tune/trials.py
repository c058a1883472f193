"""Short runs of a recipe from one start, on the trainer of Lightning, without a folder, a logger or checkpoints.

Lightning's own `Tuner.lr_find` (2.6) does not fit: it gives every optimizer group the same rate, records the loss of
the last micro-batch alone, and rewinds by a checkpoint, which a task of ours ties to the run's position in its data.
"""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch

from kebyt5_xm.commands.tune.choice import Point, has_diverged, to_points
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.loading.micro_batches import ValidationMicroBatches
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.schedules import Cosine
from kebyt5_xm.training import trainer_options
from kebyt5_xm.training.task import Task

TRAINER_OPTIONS = ("accelerator", "precision", "gradient_clip_val", "gradient_clip_algorithm", "plugins")
"""Options of `trainer` that a short run takes from the recipe. It runs on one device."""
WARMUP = 3
"""Steps at the lowest rate in which the range test measures the time of a step; the first one is not counted."""
WARMUP_SHARE = 0.1
"""Of a short run, with a rising rate."""
HELD_OUT_ROWS = 128
"""Held-out examples of each part that judge a short run."""


class Trials:
    """Runs of the task from the same weights and the same first example.

    Args:
        task: its model is built here, from random weights of the current seed or from those of the recipe.
        data: prepared and connected.
        trainer: options of the recipe's trainer.
        is_stopped: asked after every step; a run ends when it is true.
    """

    def __init__(
        self, task: Task, data: DataModule, trainer: Mapping[str, Any], is_stopped: Callable[[], bool]
    ) -> None:
        self.task, self.data, self.is_stopped = task, data, is_stopped
        self._options = {name: trainer[name] for name in TRAINER_OPTIONS if trainer.get(name) is not None}
        task.connect(data)
        task.model = model = task.builder.build()
        changing = {name for name, p in model.named_parameters() if p.requires_grad}
        changing |= {name for name, _ in model.named_buffers()}
        self._start = {name: value.clone() for name, value in model.state_dict().items() if name in changing}
        optimizer = task.optimization.build(model, 1 << 30)[0]
        self.optimizer = type(optimizer)  # its schedule has lowered `lr` for the first step already
        self.rate = float(optimizer.defaults["lr"])
        """`lr` of the recipe's optimizer."""
        self.rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        """Of the optimizer groups, as the recipe gives them."""

    def range_test(self, low: float, high: float, seconds: float, fewest: int, most: int) -> "RangeTest":
        """Return the range test over factors from `low` to `high` on the recipe's rates.

        It takes as many steps as fit into `seconds`, at least `fewest` and at most `most`; none if `fewest` do not
        fit.
        """
        test = RangeTest(self, low, high, seconds, (fewest, most))
        self.task.optimization.schedule = None
        self._fit(self._count(WARMUP + most), test)
        return test

    def train(self, factor: float, steps: int) -> float:
        """Return the loss after `steps` steps with `factor` times the recipe's rates, by a warm-up and a cosine."""
        warmup = max(1, round(WARMUP_SHARE * steps))
        self.task.optimization.schedule = lambda optimizer, total: Cosine(optimizer, total, warmup)
        outcome = Outcome(self, factor)
        self._fit(self._count(steps), outcome)
        return outcome.loss

    def _count(self, steps: int) -> int:
        """Return `steps`, or fewer if the sources end before."""
        return max(1, self.data.steps.count(steps))

    def _fit(self, steps: int, callback: pl.Callback) -> None:
        assert self.task.model is not None
        self.task.model.load_state_dict(self._start, strict=False)
        self.data.cursor.load_state_dict({"next_step": 0, "next_index": 0})
        trainer = pl.Trainer(
            **{
                **trainer_options.DEFAULTS,
                **self._options,
                "devices": 1,
                "max_steps": steps,
                "accumulate_grad_batches": self.data.steps.num_micro_batches,
                "limit_val_batches": 0,
                "logger": False,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "callbacks": [callback],
            }
        )
        trainer.fit(self.task, datamodule=self.data)


class _Scaled(pl.Callback):
    """Multiplies the rates of all optimizer groups."""

    def __init__(self, trials: Trials) -> None:
        self.trials = trials

    def set_factor(self, trainer: pl.Trainer, factor: float) -> None:
        for group, rate in zip(trainer.optimizers[0].param_groups, self.trials.rates, strict=True):
            group["lr"] = group["initial_lr"] = rate * factor

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        task = self.trials.task
        if batch.progress.ends_step:
            loss = task.tally.totals()[1].loss if task.watch.is_finite else math.nan
            self.record(trainer, loss)
            trainer.should_stop = trainer.should_stop or self.trials.is_stopped()

    def record(self, trainer: pl.Trainer, loss: float) -> None:
        """Take the loss of a finished step."""
        raise NotImplementedError


class RangeTest(_Scaled):
    """Raises the rate geometrically from step to step, as fast as the time that is left asks for.

    Attributes:
        points: one for each step after the warm-up.
        step_seconds: of a step, on average.
        is_short: whether `seconds` were too few, so that nothing was tested.
    """

    def __init__(
        self, trials: Trials, low: float, high: float, seconds: float, limits: tuple[int, int]
    ) -> None:
        super().__init__(trials)
        self.high, self.seconds, self.limits = high, seconds, limits
        self.is_short = False
        self._factor = low
        self._tested: list[tuple[float, float]] = []  # factor, loss
        self._times: list[float] = []  # when each step ended

    @property
    def points(self) -> list[Point]:
        rates = [self.trials.rate * factor for factor, _ in self._tested]
        return to_points(rates, [loss for _, loss in self._tested])

    @property
    def step_seconds(self) -> float:
        return (
            (self._times[-1] - self._times[0]) / (len(self._times) - 1) if len(self._times) > 1 else math.nan
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.set_factor(trainer, self._factor)

    def record(self, trainer: pl.Trainer, loss: float) -> None:
        self._times.append(time.perf_counter())
        if len(self._times) > WARMUP:
            self._tested.append((self._factor, loss))
        if len(self._times) < WARMUP:
            return
        fewest, most = self.limits
        left = int((self.seconds - (self._times[-1] - self._times[0])) / max(self.step_seconds, 1e-9))
        self.is_short = not self._tested and left < fewest
        left = max(left, fewest - len(self._tested))  # steps may have become slower
        left = min(left, most - len(self._tested), trainer.max_steps - len(self._times))
        if left < 1 or self._factor >= self.high or has_diverged([loss for _, loss in self._tested]):
            trainer.should_stop = True
        elif self._tested:
            self._factor *= (self.high / self._factor) ** (1 / left)
        trainer.should_stop = trainer.should_stop or self.is_short
        self.set_factor(trainer, self._factor)


class Outcome(_Scaled):
    """Trains with a factor on the rates; `loss` is of held-out examples, or of the last steps if there are none.

    Attributes:
        targets: source -> target ids that it has trained on.
    """

    def __init__(self, trials: Trials, factor: float) -> None:
        super().__init__(trials)
        self.factor = factor
        self.loss = math.nan
        self.targets: Counter[str] = Counter()
        self._losses: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        schedule: Any = trainer.lr_scheduler_configs[0].scheduler
        schedule.base_lrs = [rate * self.factor for rate in self.trials.rates]
        self.set_factor(trainer, self.factor)
        for group, rate in zip(trainer.optimizers[0].param_groups, schedule.get_lr(), strict=True):
            group["lr"] = rate

    def record(self, trainer: pl.Trainer, loss: float) -> None:
        self._losses.append(loss)
        names, parts = self.trials.data.training.names, self.trials.task.tally.totals()[0]
        for name, part in zip(names, parts, strict=True):
            self.targets[source_of(name)] += int(part.targets)
        if not math.isfinite(loss):
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        last = self._losses[-max(1, len(self._losses) // 4) :]
        self.loss = sum(last) / max(1, len(last))
        if self.trials.data.validation.parts and math.isfinite(self.loss) and not self.trials.is_stopped():
            with trainer.strategy.precision_plugin.forward_context():
                losses = held_out_losses(self.trials.task, self.trials.data)
            self.loss = weigh(losses, self.targets)


@torch.no_grad()
def held_out_losses(task: Task, data: DataModule) -> dict[str, float]:
    """Return, by source, the mean loss of a target id over the first held-out examples of its parts, in nats."""
    model = task.model
    assert model is not None
    model.eval()
    tally = Tally(len(data.validation), task.device)
    for number, part in enumerate(data.validation.parts):
        rows = min(HELD_OUT_ROWS, part.num_rows)
        batches: ValidationMicroBatches = data.validation.micro_batches(number, data.micro_batch_size)
        for first in range(-(-rows // data.micro_batch_size)):
            batch = batches[first].to(task.device)
            output = teacher_force(model, batch.inputs, batch.labels, {})
            tally.add(batch, token_losses(output.logits, batch.labels))
    model.train()
    nats: defaultdict[str, float] = defaultdict(float)
    targets: defaultdict[str, float] = defaultdict(float)
    for name, total in zip(data.validation.names, tally.totals()[0], strict=True):
        nats[source_of(name)] += total.nats
        targets[source_of(name)] += total.targets
    return {source: nats[source] / targets[source] for source in nats if targets[source]}


def weigh(losses: Mapping[str, float], targets: Mapping[str, float]) -> float:
    """Return the mean of the sources' losses, each by its share of the target ids that were trained on.

    Held-out sets are of any size: those of a text that a model knows already would outweigh what it is to learn.
    """
    weights = {source: targets.get(source, 0) for source in losses}
    if not any(weights.values()):  # held out are other sources than those trained on
        weights = dict.fromkeys(losses, 1)
    return sum(losses[source] * weight for source, weight in weights.items()) / sum(weights.values())


def source_of(part: str) -> str:
    """Return the source of a part that is named as in logs: `text` of `text/ko`."""
    return part.partition("/")[0]
