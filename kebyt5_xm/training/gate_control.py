"""The loss of a delete gate, and the controller of its weight, which holds the share of deleted positions.

Both are MrT5's (Kallini et al. 2024, arXiv 2410.20771): the loss is weight x the mean of G, and a
proportional-integral controller sets the weight after each step from the share that the step has deleted.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import Tensor

from kebyt5_xm.data.batch import IGNORE_INDEX, Batch
from kebyt5_xm.data.order.steps import Budget
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.delete_gate import SCALE, DeleteGate
from kebyt5_xm.model.outputs import Outputs

KEY = "delete_gate"
"""Key of a checkpoint for the state of the controller."""

PROPORTIONAL, INTEGRAL, SMOOTHING = 0.5, 1e-5, 0.9
"""k_p, k_i and gamma of MrT5's controller."""


class Controller:
    """Sets the weight of a gate's loss so that the share of deleted positions approaches `rate`.

    With the error e = rate - share of a step, p <- gamma p + (1 - gamma) e and i <- i + e; the weight is
    k_p p + k_i i. Unlike MrT5's it may be negative, which rewards keeping: the share sees the gate's first steps only
    when many positions cross the threshold, and the model's own loss alone does not bring them back
    (docs/experiments.md).
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._mean_error = self._sum_of_errors = 0.0

    @property
    def weight(self) -> float:
        """The weight of the loss in the next step."""
        return PROPORTIONAL * self._mean_error + INTEGRAL * self._sum_of_errors

    def update(self, share: float) -> None:
        """Take the share of deleted positions in a step."""
        error = self.rate - share
        self._mean_error = SMOOTHING * self._mean_error + (1 - SMOOTHING) * error
        self._sum_of_errors += error

    def state(self) -> dict[str, float]:
        """Return what a checkpoint holds."""
        return {"mean_error": self._mean_error, "sum_of_errors": self._sum_of_errors}

    def load(self, state: Mapping[str, float]) -> None:
        """Continue from a `state`."""
        self._mean_error, self._sum_of_errors = state["mean_error"], state["sum_of_errors"]


class GateControl:
    """The loss and the controller of a recipe's gate."""

    def __init__(self, gate: DeleteGate) -> None:
        self._gate, self._controller = gate, Controller(gate.rate)
        self._counts = torch.zeros(2)  # deleted and all positions of a step
        self._share = math.nan

    def begin(self, model: CrossModalT5, step: int) -> None:
        """Start a step."""
        assert model.delete_gate is not None
        model.delete_gate.is_hard = self._gate.hard_from is not None and step >= self._gate.hard_from
        self._counts = torch.zeros(2, device=model.device)

    def add(self, output: Outputs, batch: Batch, factor: float) -> Tensor:
        """Return the loss of a micro-batch, which is added to the model's.

        It is weight x the mean G of a row, in which rows count by their target ids as in the model's loss, so it
        does not depend on micro-batches and ranks. `factor` is that of the model's loss.
        """
        assert output.gate is not None
        lengths, targets = batch.inputs.lengths, (batch.labels != IGNORE_INDEX).sum(1)
        deleted = (output.gate.detach() > 0.5).sum(1)
        counted = targets > 0  # filler has none
        self._counts += torch.stack([deleted[counted].sum(), lengths[counted].sum()])
        means = SCALE * output.gate.sum(1) / lengths
        loss = self._controller.weight * factor * (means * targets).sum()
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)

    def end(self, strategy: Strategy, is_finite: bool) -> None:
        """End a step, whose counts set the weight of the next unless it was not finite. Every rank must call it."""
        counts = strategy.reduce(self._counts, reduce_op="sum")
        assert isinstance(counts, Tensor)
        deleted, positions = counts.tolist()
        self._share = deleted / positions if positions else math.nan
        if is_finite and positions:
            self._controller.update(self._share)

    def metrics(self) -> dict[str, float]:
        """Return the share that the last step has deleted, and the weight of the loss after it."""
        return {"train/deleted": self._share, "train/deletion_weight": self._controller.weight}

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write the controller into a checkpoint."""
        checkpoint[KEY] = self._controller.state()

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Continue with the controller of a checkpoint."""
        if KEY in checkpoint:
            self._controller.load(checkpoint[KEY])


def check_batches(gate: DeleteGate | None, budget: Budget | None, strategy: Strategy | None = None) -> None:
    """Raise `UserError` if a gate cannot train with the recipe's batches, or with its strategy if known."""
    if gate is None:
        return
    if budget is not None and budget.packed_length is not None:
        raise UserError(
            f"model.delete_gate knows no packed rows, but data.budget.packed_length is {budget.packed_length}; "
            "take it out, for padded rows of at most data.budget.micro_length positions"
        )
    if isinstance(strategy, DeepSpeedStrategy):
        raise UserError(
            "model.delete_gate is set, but it was not tried with DeepSpeed, whose losses are scaled differently; "
            "use DDP or FSDP2"
        )


def check_gate(gate: DeleteGate, backbone: Backbone, heads: Collection[str] = ()) -> None:
    """Raise `UserError` if a backbone cannot have the gate, or if there are CTC `heads`, of these modalities."""
    num_layers = backbone.config().num_layers
    if gate.layer >= num_layers:
        raise UserError(
            f"model.delete_gate.layer is {gate.layer}, but the encoder has {num_layers} layers and at least one must "
            f"follow the gate; expected at most {num_layers - 1}"
        )
    if backbone.frozen:
        raise UserError(
            "model.delete_gate is set, but model.backbone.frozen is true: the layers after the gate must learn to do "
            "without deleted positions; set frozen to false"
        )
    if backbone.attention == "eager":
        raise UserError(
            "model.delete_gate needs masks that eager attention does not apply; set model.backbone.attention: sdpa"
        )
    for name in heads:
        raise UserError(
            f"model.delete_gate is set, but model.modalities.{name}.ctc reads the encoder's state of every slot, and "
            "the gate deletes slots; take one of them out"
        )
