"""The losses that are trained beside the model's own, and logged apart from it: of draft heads and of CTC heads."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.model.network import Outputs
from kebyt5_xm.training.building import ModelBuilder
from kebyt5_xm.training.ctc_check import check_transcripts, transcript_parts
from kebyt5_xm.training.ctc_loss import CTCLoss
from kebyt5_xm.training.draft_loss import DraftLoss


class SideLosses:
    """The side losses of one optimizer step after another.

    Raises `UserError` if a CTC head's sources are wrong, or if it can learn hardly any of their first rows.
    """

    def __init__(self, builder: ModelBuilder, data: DataModule) -> None:
        check_transcripts(builder.ctc, data)
        self._heads, self._parts = builder.ctc, transcript_parts(builder.ctc, data)
        self._has_drafts = builder.draft_heads is not None

    def begin(self, device: torch.device) -> None:
        """Start a step."""
        self._draft = DraftLoss(device) if self._has_drafts else None
        self.ctc = CTCLoss(self._heads, self._parts, device)

    def add(self, output: Outputs, batch: Batch, factor: float) -> list[Tensor]:
        """Return factor x the losses of a micro-batch, those that the model has."""
        drafted = None if self._draft is None else self._draft.add(output, batch, factor)
        heard = self.ctc.add(output, batch.progress.step, factor)
        return [loss for loss in (drafted, heard) if loss is not None]

    def metrics(self, strategy: Strategy) -> dict[str, float]:
        """Return metric -> value over the ranks of `strategy`. Every rank must call it."""
        drafted = {} if self._draft is None else {"train/loss/draft": self._draft.mean(strategy)}
        return drafted | self.ctc.metrics(strategy)
