"""The forgetting meter: what the model still knows of text while it learns something else.

Bits per byte of held-out text, by language, are measured before the first step and at every validation. What they
have risen by is what was forgotten. A gate warns, stops the run, or raises the share of text until they are back.
"""

from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.checkpoints import Newest
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError


@dataclass
class Forgetting:
    """When text counts as forgotten, and what then happens: `forgetting` in a recipe.

    Args:
        tolerance: bits per byte that a language's held-out text may lie above the start.
        action: `none`, `warn`, `stop` the run with a checkpoint, or `raise_text`: multiply the weight of the
            denoising sources at every validation until all languages are back within the tolerance.
        factor: by which `raise_text` multiplies each time.
        max_factor: to which it multiplies at most.
        from_scratch: measure before the first step of a run that starts from random weights too.
    """

    tolerance: float = 0.1
    action: Literal["none", "warn", "stop", "raise_text"] = "none"
    factor: float = 2.0
    max_factor: float = 16.0
    from_scratch: bool = False

    def check(self) -> None:
        """Raise `UserError` for values that mean nothing. Not on being made: a parser does that, unawares."""
        if not self.tolerance >= 0:
            raise UserError(f"forgetting.tolerance is {self.tolerance}; expected 0 bits per byte or more")
        if not 1 < self.factor <= self.max_factor:
            raise UserError(
                f"forgetting.factor is {self.factor} and max_factor {self.max_factor}; expected a factor over 1, and "
                "no larger than max_factor"
            )


class ForgettingMeter(pl.Callback):
    """Measures, logs `forgetting/SOURCE/LANGUAGE` and `text_share` at every validation, and acts as told.

    `parts` is held-out part -> its bits per byte at the start, now, and at their worst. It travels in checkpoints.
    """

    def __init__(self, settings: Forgetting, newest: Newest | None = None) -> None:
        settings.check()
        self.settings = settings
        self.newest = newest
        self.parts: dict[str, dict[str, float]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"parts": self.parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.parts = state_dict["parts"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate before the first step, where there is something to forget; a resumed run is past it."""
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        warm = pl_module.backbone.weights is not None or self.settings.from_scratch  # pyright: ignore
        if trainer.global_step > 0 or not warm:
            return
        if not data.text_parts():
            if self.settings.action != "none":
                raise UserError(
                    f"forgetting.action is {self.settings.action}, but no source has held-out text to measure; add "
                    "one of kebyt5_xm.data.Denoising under data.sources, or take the action out"
                )
            return
        epoch_loop = trainer.fit_loop.epoch_loop
        # Loggers are told the step counted from zero, N - 1 after N steps; so it is -1 before the first.
        epoch_loop._batches_that_stepped = -1
        trainer.validating = True  # as Lightning's own loop does it between two steps (2.6)
        epoch_loop.val_loop.run()
        trainer.training = True
        epoch_loop._batches_that_stepped = 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if trainer.state.fn != "fit":
            return
        for name in data.text_parts():
            found = trainer.callback_metrics.get(f"val/bits_per_byte/{name}")
            if found is None or (trainer.global_step > 0 and name not in self.parts):
                continue
            bits = float(found)
            part = self.parts.setdefault(name, {"start": bits, "end": bits, "worst": bits})
            part |= {"end": bits, "worst": max(bits, part["worst"])}
        if not self.parts:
            return
        metrics = {f"forgetting/{name}": part["end"] - part["start"] for name, part in self.parts.items()}
        for logger in trainer.loggers:
            logger.log_metrics(metrics | {"text_share": data.text_share()}, trainer.global_step - 1)
        self._act(trainer, data)

    def _act(self, trainer: pl.Trainer, data: DataModule) -> None:
        name = max(self.parts, key=lambda n: self.parts[n]["end"] - self.parts[n]["start"])
        part = self.parts[name]
        forgotten = part["end"] - part["start"] > self.settings.tolerance
        found = (
            f"step {trainer.global_step}: held-out text of '{name}' takes {part['end']:.3f} bits per byte, "
            f"{part['end'] - part['start']:.3f} more than at the start, where {self.settings.tolerance:g} is allowed"
        )
        if forgotten and self.settings.action == "warn":
            rank_zero_info(f"forgetting: {found}; raise the weight of the text sources, or lower the rates")
        elif forgotten and self.settings.action == "stop":
            if self.newest is not None and trainer.global_step > 0:
                self.newest.save(trainer)
            raise UserError(
                f"{found}; the run was saved and stopped: raise the weight of the text sources or lower the rates, "
                "and start again, or go on with --ckpt_path last and another forgetting.action"
            )
        elif self.settings.action == "raise_text":
            raised = min(data.text_factor * self.settings.factor, self.settings.max_factor)
            self._set_factor(trainer, data, raised if forgotten else 1.0, found)

    def _set_factor(self, trainer: pl.Trainer, data: DataModule, factor: float, found: str) -> None:
        if factor == data.text_factor:
            return
        data.set_text_factor(factor)
        share = f"text is now {data.text_share():.1%} of the examples"
        rank_zero_info(f"forgetting: {found}; {share}" if factor > 1 else f"forgetting: recovered; {share}")
        if self.newest is not None and trainer.global_step > 0:
            self.newest.save_again(trainer)  # one of this step was written before it was validated
