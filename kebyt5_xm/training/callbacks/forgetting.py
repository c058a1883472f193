"""The forgetting meter: what the model still knows of text while it learns something else.

Bits per byte of held-out text, by language, are measured before the first step and at every validation. What they
have risen by is what was forgotten. A gate warns, stops the run, or raises the share of text until they are back.
"""

import math
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.callbacks.checkpoints import Newest
from kebyt5_xm.training.callbacks.forgetting_gate import Forgetting
from kebyt5_xm.training.validations import is_due, validate


class ForgettingMeter(pl.Callback):
    """Measures, logs `forgetting/SOURCE/LANGUAGE` and `text_share` at every validation, and acts as told.

    It measures the held-out parts of denoising sources in a run that starts from weights. `parts` is held-out part ->
    its bits per byte at the start, now (`end`), and at their worst; it travels in checkpoints.

    Raises `UserError` where an action has nothing to measure or nothing to change, and to stop a run.
    """

    def __init__(self, settings: Forgetting, newest: Newest, data: DataModule) -> None:
        settings.check()
        self.settings = settings
        self.newest = newest
        self.data = data
        self.parts: dict[str, dict[str, float]] = {}
        self._measures = False
        self._judged = -1  # the last step whose validation was judged
        self._verdict: str | None = None
        self._within_step = False
        self._wanted: float | None = None  # a factor that waits for the end of the step

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts, "judged": self._judged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.parts, self._judged = state_dict["parts"], state_dict["judged"]

    # -- what can be measured ----------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Say what is wrong with the gate before weights are loaded."""
        if stage != "fit":
            return
        warm = pl_module.backbone.weights is not None  # pyright: ignore
        measurable = bool(self.data.text_parts()) and trainer.limit_val_batches != 0
        self._measures = measurable and (warm or self.settings.from_scratch)
        action = self.settings.action
        if action != "none" and not measurable:
            raise UserError(
                f"forgetting.action is {action}, but no text is held out to measure; expected a "
                "kebyt5_xm.data.Denoising with `validation` under data.sources, or action none"
            )
        if action != "none" and not self._measures:
            raise UserError(
                f"forgetting.action is {action}, but the run starts from random weights, which know no text yet; "
                "give model.backbone.weights, or set forgetting.from_scratch: true, or action none"
            )
        if action == "raise_text":
            _check_can_raise(self.data)

    # -- validations that Lightning does not run -----------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._measures and trainer.global_step == 0:
            validate(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a resumed run, judge the validation of the checkpoint's step if that was written before it.

        Lightning (2.6) takes it for done, and the run would go on otherwise than one that was never stopped.
        """
        if trainer.global_step == 0:
            return
        if self.settings.action != "raise_text" and self.data.cursor.text_factor != 1:
            self._set_factor(trainer, 1.0, "forgetting.action is no longer raise_text")
        if not self._measures:
            return
        if not self.parts:
            if self.settings.action != "none":
                raise UserError(
                    f"forgetting.action is {self.settings.action}, but the run began without measuring, so "
                    "there is no start to compare with; expected action none, or a new run that measures"
                )
            return
        if self._judged != trainer.global_step and (is_due(trainer) or self._judged < 0):
            validate(trainer)

    # -- measuring and acting ------------------------------------------------------------------------

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._measures or trainer.state.fn != "fit":
            return
        data, step = self.data, trainer.global_step
        for name in data.text_parts():
            found = trainer.callback_metrics.get(f"val/bits_per_byte/{name}")
            if found is None or (step > 0 and name not in self.parts):
                continue
            # Reduced over ranks already; one rank's word makes sure that all act alike.
            bits = trainer.strategy.broadcast(float(found))
            if not math.isfinite(bits):
                if name not in self.parts:
                    self._refuse_start(name, bits)
                    continue
                bits = math.inf  # NaN too: worse than any figure, so beyond every gate
            part = self.parts.setdefault(name, {"start": bits, "end": bits, "worst": bits})
            part |= {"end": bits, "worst": max(bits, part["worst"])}
        if not self.parts:
            return
        metrics = {f"forgetting/{name}": part["end"] - part["start"] for name, part in self.parts.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics | {"text_share": data.cursor.text_share()}, step - 1)
        self._judged = step
        self._judge(trainer)

    def _refuse_start(self, name: str, bits: float) -> None:
        if self.settings.action != "none":
            raise UserError(
                f"held-out text of '{name}' takes {bits} bits per byte before the first step, so there is no start "
                f"that forgetting.action {self.settings.action} could compare with; give other weights, or "
                "action none"
            )

    def _judge(self, trainer: pl.Trainer) -> None:
        tolerance, factor, max_factor = self.settings.values()
        name = max(self.parts, key=lambda n: self.parts[n]["end"] - self.parts[n]["start"])
        start, end = self.parts[name]["start"], self.parts[name]["end"]
        forgotten = end - start > tolerance
        found = (
            f"step {trainer.global_step}: held-out text of '{name}' takes {end:.3f} bits per byte, {start:.3f} at "
            f"the start; {tolerance:g} more are allowed"
        )
        if self.settings.action == "raise_text":
            now = self.data.cursor.text_factor
            wanted = min(now * factor, max_factor) if forgotten else 1.0
            if forgotten and wanted == now:
                rank_zero_info(f"forgetting: {found}; text has forgetting.max_factor {max_factor:g} already")
            elif wanted != now and self._within_step:
                self._wanted = wanted
            elif wanted != now:
                back = (
                    f"step {trainer.global_step}: all text is within {tolerance:g} bits per byte of the start"
                )
                self._set_factor(trainer, wanted, found if forgotten else back)
        elif forgotten and self.settings.action == "warn":
            rank_zero_info(f"forgetting: {found}; raise the weight of the text sources, or lower the rates")
        elif forgotten and self.settings.action == "stop":
            self._judged = -1  # so that a resumed run is judged again, by the gate that it then has
            self._verdict = (
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
        self._within_step = not batch.progress.ends_step
        if (
            self._wanted is not None and not self._within_step
        ):  # of a validation by the clock, within the step
            self._set_factor(trainer, self._wanted, f"step {trainer.global_step}")
            self._wanted = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Stop here, once everything else that follows a validation is done, the best checkpoint too."""
        if self._verdict is not None and not self._within_step:
            self.newest.save(trainer)
            raise UserError(self._verdict)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop a run that has come to its end; it is saved and its results are written."""
        if self._verdict is not None:
            raise UserError(self._verdict)


def _check_can_raise(data: DataModule) -> None:
    if data.cursor.text_share() == 1:
        raise UserError(
            "forgetting.action is raise_text, but every source is text already; expected a source beside the "
            "denoising ones, or warn or stop"
        )
    if data.budget is not None and data.cursor.plan.num_examples is not None:
        raise UserError(  # how many examples fill a step follows from which they are
            "forgetting.action is raise_text and all sources end after their `epochs`, so with data.budget the "
            "number of steps is not known beforehand; set epochs: null for one of them, or data.global_batch_size"
        )
