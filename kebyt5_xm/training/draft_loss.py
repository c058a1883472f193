"""The loss of draft heads, which is trained and logged beside the model's."""

import math

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from kebyt5_xm.data.batch import IGNORE_INDEX, Batch
from kebyt5_xm.model.draft_heads import draft_labels
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.model.outputs import Outputs


def draft_losses(output: Outputs, batch: Batch) -> tuple[Tensor, Tensor] | None:
    """Return the negative log-likelihoods [C, B, T] of a batch's draft labels in nats, and these labels.

    None if the model has no draft heads or is in eval mode. The losses are zero where a label is `IGNORE_INDEX`.
    """
    logits = output.draft_logits
    if logits is None:
        return None
    packing = batch.inputs.packing
    segments = None if packing is None else packing.target_segments
    labels = draft_labels(batch.labels, segments, len(logits))
    losses = token_losses(logits.flatten(0, 1), labels.flatten(0, 1))
    return losses.view_as(labels), labels


class DraftLoss:
    """The losses of one optimizer step, one micro-batch after another."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, device=device)  # nats, labels

    def add(self, output: Outputs, batch: Batch, factor: float) -> Tensor | None:
        """Return factor x the sum of a micro-batch's losses, averaged over the heads; None without heads.

        If that is not finite, its gradient is NaN, so the step is not taken.
        """
        found = draft_losses(output, batch)
        if found is None:
            return None
        losses, labels = found
        self._sums += torch.stack([losses.detach().sum(), (labels != IGNORE_INDEX).sum()])
        loss = losses.sum() * (factor / len(losses))
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)

    def mean(self, strategy: Strategy) -> float:
        """Return the mean loss of a label in nats, over the ranks; NaN without labels. Every rank must call it."""
        sums = strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        nats, count = sums.tolist()
        return nats / count if count else math.nan
