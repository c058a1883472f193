"""The forgetting meter: how well the model still predicts text while it learns something else.

Bits per byte of held-out text are measured by language, before the first step and at every validation. Their rise is
the forgetting. If it is above a tolerance, a warning is printed, the run stops, or the share of text is raised until
all languages are back within the tolerance.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.callbacks.checkpoints import Newest
from kebyt5_xm.training.validation import is_due, validate

DEFAULT_TOLERANCE, DEFAULT_FACTOR, DEFAULT_MAX_FACTOR = 0.1, 2.0, 16.0
"""Chosen by us, not measured."""


@dataclass
class Forgetting:
    """When text counts as forgotten, and what then happens: `forgetting` in a recipe.

    Args:
        action: `none`, `warn`, `stop` the run with a checkpoint, or `raise_text`: multiply the weight of the
            denoising sources at every validation until all languages are back within the tolerance.
        tolerance: how far the bits per byte of a language may rise above the start; 0.1 by default.
        factor: by which `raise_text` multiplies each time; 2 by default.
        max_factor: to which it multiplies at most; 16 by default.
        from_scratch: measure a run that starts from random weights too.
    """

    action: Literal["none", "warn", "stop", "raise_text"] = "none"
    tolerance: float | None = None
    factor: float | None = None
    max_factor: float | None = None
    from_scratch: bool = False

    def check(self) -> None:
        """Raise `UserError` for values without effect. Not in `__post_init__`: parsers build instances on the way."""
        if self.action == "none" and self.tolerance is not None:
            raise UserError(
                f"forgetting.tolerance is {self.tolerance:g}, but forgetting.action is none; expected warn, stop or "
                "raise_text, or no tolerance"
            )
        for name, value in (("factor", self.factor), ("max_factor", self.max_factor)):
            if value is not None and self.action != "raise_text":
                raise UserError(
                    f"forgetting.{name} is {value:g}, but forgetting.action is {self.action}; expected raise_text, "
                    f"or no {name}"
                )
        tolerance, factor, max_factor = self.with_defaults()
        if not tolerance >= 0:
            raise UserError(f"forgetting.tolerance is {tolerance:g}; expected 0 bits per byte or more")
        if not 1 < factor <= max_factor:
            raise UserError(
                f"forgetting.factor is {factor:g} and max_factor {max_factor:g}; expected a factor over 1, and no "
                "larger than max_factor"
            )

    def with_defaults(self) -> tuple[float, float, float]:
        """Return tolerance, factor and max_factor, with defaults filled in."""
        return (
            DEFAULT_TOLERANCE if self.tolerance is None else self.tolerance,
            DEFAULT_FACTOR if self.factor is None else self.factor,
            DEFAULT_MAX_FACTOR if self.max_factor is None else self.max_factor,
        )


class ForgettingMeter(pl.Callback):
    """Measures and logs `forgetting/SOURCE/LANGUAGE` and `text_share` at every validation, and acts on a rise.

    It measures the held-out parts of denoising sources. Runs from random weights are measured only with
    `from_scratch`. `parts` is held-out part -> its bits per byte at the `start`, now (`end`) and at their `worst`;
    checkpoints hold it.

    Raises `UserError` if an action has nothing to measure or nothing to change, and to stop a run.
    """

    def __init__(self, settings: Forgetting, newest: Newest, data: DataModule) -> None:
        settings.check()
        self.settings = settings
        self.newest = newest
        self.data = data
        self.parts: dict[str, dict[str, float]] = {}
        self._is_measuring = False
        self._judged_step = -1
        self._stop_message: str | None = None
        self._is_within_step = False
        self._pending_factor: float | None = None  # applied at the end of the step

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts, "judged": self._judged_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.parts, self._judged_step = state_dict["parts"], state_dict["judged"]

    # -- what can be measured ----------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the settings before weights are loaded."""
        if stage != "fit":
            return
        warm = pl_module.backbone.weights is not None  # pyright: ignore
        measurable = bool(self.data.text_parts()) and trainer.limit_val_batches != 0
        self._is_measuring = measurable and (warm or self.settings.from_scratch)
        action = self.settings.action
        if action != "none" and not measurable:
            raise UserError(
                f"forgetting.action is {action}, but no text is held out to measure; expected a "
                "kebyt5_xm.data.Denoising with `validation` under data.sources, or action none"
            )
        if action != "none" and not self._is_measuring:
            raise UserError(
                f"forgetting.action is {action}, but the run starts from random weights, which know no text yet; "
                "give model.backbone.weights, or set forgetting.from_scratch: true, or action none"
            )
        if action == "raise_text":
            _check_can_raise(self.data)

    # -- validations that Lightning does not run -----------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._is_measuring and trainer.global_step == 0:
            validate(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a resumed run, repeat the validation of the checkpoint's step if it has not been judged.

        Checkpoints are written before the validation of their step, but Lightning (2.6) assumes that it is done. The
        resumed run would then differ from a run that was never stopped.
        """
        if trainer.global_step == 0:
            return
        if self.settings.action != "raise_text" and self.data.cursor.text_factor != 1:
            self._set_factor(trainer, 1.0, "forgetting.action is no longer raise_text")
        if not self._is_measuring:
            return
        if not self.parts:
            if self.settings.action != "none":
                raise UserError(
                    f"forgetting.action is {self.settings.action}, but the run began without measuring, so "
                    "there is no start to compare with; expected action none, or a new run that measures"
                )
            return
        if self._judged_step != trainer.global_step and (is_due(trainer) or self._judged_step < 0):
            validate(trainer)

    # -- measuring and acting ------------------------------------------------------------------------

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._is_measuring or trainer.state.fn != "fit":
            return
        data, step = self.data, trainer.global_step
        for name in data.text_parts():
            found = trainer.callback_metrics.get(f"val/bits_per_byte/{name}")
            if found is None or (step > 0 and name not in self.parts):
                continue
            # Already reduced over ranks; the broadcast makes sure that all ranks act alike.
            bits = trainer.strategy.broadcast(float(found))
            if not math.isfinite(bits):
                if name not in self.parts:
                    self._refuse_start(name, bits)
                    continue
                bits = math.inf  # NaN too: above every tolerance
            part = self.parts.setdefault(name, {"start": bits, "end": bits, "worst": bits})
            part |= {"end": bits, "worst": max(bits, part["worst"])}
        if not self.parts:
            return
        metrics = {f"forgetting/{name}": part["end"] - part["start"] for name, part in self.parts.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics | {"text_share": data.cursor.text_share()}, step - 1)
        self._judged_step = step
        self._judge(trainer)

    def _refuse_start(self, name: str, bits: float) -> None:
        if self.settings.action != "none":
            raise UserError(
                f"held-out text of '{name}' takes {bits} bits per byte before the first step, so there is no start "
                f"that forgetting.action {self.settings.action} could compare with; give other weights, or "
                "action none"
            )

    def _judge(self, trainer: pl.Trainer) -> None:
        tolerance, factor, max_factor = self.settings.with_defaults()
        name = max(self.parts, key=lambda n: self.parts[n]["end"] - self.parts[n]["start"])
        start, end = self.parts[name]["start"], self.parts[name]["end"]
        is_forgotten = end - start > tolerance
        found = (
            f"step {trainer.global_step}: held-out text of '{name}' takes {end:.3f} bits per byte, {start:.3f} at "
            f"the start; {tolerance:g} more are allowed"
        )
        if self.settings.action == "raise_text":
            now = self.data.cursor.text_factor
            wanted = min(now * factor, max_factor) if is_forgotten else 1.0
            if is_forgotten and wanted == now:
                rank_zero_info(f"forgetting: {found}; text has forgetting.max_factor {max_factor:g} already")
            elif wanted != now and self._is_within_step:
                self._pending_factor = wanted
            elif wanted != now:
                back = (
                    f"step {trainer.global_step}: all text is within {tolerance:g} bits per byte of the start"
                )
                self._set_factor(trainer, wanted, found if is_forgotten else back)
        elif is_forgotten and self.settings.action == "warn":
            rank_zero_info(f"forgetting: {found}; raise the weight of the text sources, or lower the rates")
        elif is_forgotten and self.settings.action == "stop":
            self._judged_step = -1  # a resumed run judges again, by its own settings
            self._stop_message = (
                f"{found}; the run is stopped and saved: raise the weight of the text sources or lower the rates and "
                "start again, or go on with --ckpt_path last and another forgetting.action or tolerance"
            )

    def _set_factor(self, trainer: pl.Trainer, factor: float, why: str) -> None:
        self.data.set_text_factor(factor)
        rank_zero_info(
            f"forgetting: {why}; the weight of text is that of the recipe x {factor:g} from here on, "
            f"{self.data.cursor.text_share():.1%} of the examples"
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._is_within_step = not batch.progress.ends_step
        # A validation by the clock may come within a step.
        if self._pending_factor is not None and not self._is_within_step:
            self._set_factor(trainer, self._pending_factor, f"step {trainer.global_step}")
            self._pending_factor = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop the run here, after everything else that follows a validation, such as writing the best checkpoint."""
        if self._stop_message is not None and not self._is_within_step:
            self.newest.save(trainer)
            raise UserError(self._stop_message)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a run whose last validation shows forgetting, after its checkpoint and its results are written."""
        if self._stop_message is not None:
            raise UserError(self._stop_message)


def _check_can_raise(data: DataModule) -> None:
    if data.cursor.is_only_text:
        raise UserError(
            "forgetting.action is raise_text, but every source is text already; expected a source that is not "
            "a denoising one, or warn or stop"
        )
    if data.budget is not None and data.cursor.plan.num_examples is not None:
        raise UserError(  # the number of examples in a step depends on their lengths
            "forgetting.action is raise_text and all sources end after their `epochs`, so with data.budget the "
            "number of steps is not known beforehand; set epochs: null for one of them, or data.global_batch_size"
        )
