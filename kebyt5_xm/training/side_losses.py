"""The losses that are trained beside the model's own, and logged apart from it: of heads and of a delete gate."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.strategies import Strategy
from torch import Tensor

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.outputs import Outputs
from kebyt5_xm.training.building import ModelBuilder
from kebyt5_xm.training.ctc_check import check_transcripts, transcript_parts
from kebyt5_xm.training.ctc_loss import CTCLoss
from kebyt5_xm.training.draft_loss import DraftLoss
from kebyt5_xm.training.gate_control import GateControl, check_batches


class SideLosses:
    """The side losses of one optimizer step after another.

    Raises `UserError` if a CTC head's sources are wrong, or if it can learn hardly any of their first rows, and if a
    gate cannot train with the batches or the strategy.
    """

    def __init__(self, builder: ModelBuilder, data: DataModule, strategy: Strategy) -> None:
        check_batches(builder.delete_gate, data.budget, strategy)
        check_transcripts(builder.ctc, data)
        self._heads, self._parts = builder.ctc, transcript_parts(builder.ctc, data)
        self._has_drafts = builder.draft_heads is not None
        self._gate = None if builder.delete_gate is None else GateControl(builder.delete_gate)

    def begin(self, model: CrossModalT5, step: int) -> None:
        """Start a step, counted from 0."""
        self._draft = DraftLoss(model.device) if self._has_drafts else None
        self.ctc = CTCLoss(self._heads, self._parts, model.device)
        if self._gate is not None:
            self._gate.begin(model, step)

    def add(self, output: Outputs, batch: Batch, factor: float) -> list[Tensor]:
        """Return factor x the losses of a micro-batch, those that the model has."""
        drafted = None if self._draft is None else self._draft.add(output, batch, factor)
        heard = self.ctc.add(output, batch.progress.step, factor)
        deleted = None if self._gate is None else self._gate.add(output, batch, factor)
        return [loss for loss in (drafted, heard, deleted) if loss is not None]

    def end(self, strategy: Strategy, is_finite: bool) -> None:
        """End a step, of which `is_finite` says whether it was taken. Every rank must call it."""
        if self._gate is not None:
            self._gate.end(strategy, is_finite)

    def metrics(self, strategy: Strategy) -> dict[str, float]:
        """Return metric -> value over the ranks of `strategy`. Every rank must call it."""
        drafted = {} if self._draft is None else {"train/loss/draft": self._draft.mean(strategy)}
        deleted = {} if self._gate is None else self._gate.metrics()
        return drafted | self.ctc.metrics(strategy) | deleted

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write into a checkpoint what the next step needs."""
        if self._gate is not None:
            self._gate.save(checkpoint)

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        if self._gate is not None:
            self._gate.load(checkpoint)
