"""A learned gate that deletes encoder positions after an early layer, as in MrT5.

MrT5 (Kallini et al. 2024, arXiv 2410.20771) gives every position after layer l the gate G = k sigmoid(W LN(h) + b),
between k = -30 and 0. In training G is added to the attention scores of the position as a key, in the later encoder
layers and in cross-attention: soft deletion. In evaluation and generation the positions with a sigmoid above 1/2 are
taken out, so that the later layers and every decoder step compute less: hard deletion. The positions that stay keep
their G, and the relative bias is that of their distances in the input.

Unlike MrT5, the last position of a row, the end of sequence, always stays and has G = 0; MrT5 has a softmax with one
more in its denominator (softmax1) against rows without a key. A slot is a position as a byte is.

Letters in shapes: B rows, S encoder positions, K kept positions, D the model's width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import encoder_mask

PREFIX = "delete_gate."
"""Prefix of its tensors' names in a model with a gate."""

SCALE = -30.0
"""k of MrT5: a deleted position's weight in a softmax is e^-30 of what it was."""

FIRST_BIAS = -5.0
"""The first b: G starts near -0.2, so a trained model begins as it was. Our own choice."""

MAX_LENGTHS = 16
"""Hard deletion pads rows to at most so many different lengths for one S. Our own choice."""

ALIGNMENT = 8
"""These lengths are multiples of it, as matrix products on GPUs like them."""


@dataclass
class DeleteGate:
    """`model.delete_gate` in a recipe: a gate that shortens the encoder's sequence, as in MrT5.

    Args:
        layer: encoder layers before the gate; at least one must follow. MrT5 has 3 of 12.
        rate: share of the encoder's positions to delete; a controller of the gate's loss holds it.
        hard_from: optimizer step from which training takes deleted positions out too, which is faster; null for
            never.
    """

    layer: int = 3
    rate: float = 0.5
    hard_from: int | None = None

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise UserError(
                f"model.delete_gate.layer is {self.layer}; expected 1 or more encoder layers before the gate"
            )
        if not 0 < self.rate < 1:
            raise UserError(
                f"model.delete_gate.rate is {self.rate}; expected a share between 0 and 1, such as 0.5; take the "
                "block out to delete nothing"
            )
        if self.hard_from is not None and self.hard_from < 0:
            raise UserError(
                f"model.delete_gate.hard_from is {self.hard_from}; expected a step, 0 or more, or null for never"
            )

    def config(self) -> dict[str, Any]:
        """Return what config.json says of the gate, under `delete_gate`."""
        return {"layer": self.layer}


class DeleteGateModule(nn.Module):
    """The weights of a gate, which are drawn without a change to torch's global generator.

    Attributes:
        layer: encoder layers before the gate.
        is_hard: training deletes hard too.
    """

    def __init__(
        self, layer: int, d_model: int, epsilon: float = 1e-6, device: torch.device | None = None
    ) -> None:
        super().__init__()
        self.layer, self.is_hard, self._epsilon = layer, False, epsilon
        self.norm = nn.Parameter(torch.ones(d_model, device=device))
        self.weight = nn.Parameter(torch.empty(d_model, device=device))
        self.bias = nn.Parameter(torch.full((1,), FIRST_BIAS, device=device))
        if not self.weight.is_meta:
            with torch.random.fork_rng(devices=[]):
                nn.init.normal_(self.weight, std=d_model**-0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Return sigmoid(W LN(h) + b) [B, S] in fp32 for states h [B, S, D]; LN is T5's norm."""
        normed = F.rms_norm(states.float(), self.norm.shape, self.norm.float(), self._epsilon)
        return torch.sigmoid((normed * self.weight.float()).sum(-1) + self.bias.float())


@dataclass
class GatedStates(BaseModelOutput):
    """The states of an encoder with a gate, `last_hidden_state` [B, K, D]; K is S after soft deletion."""

    mask: Tensor | None = None
    """[B, K] float, as `encoder_mask` says: G of every state, minus infinity at padding."""
    positions: Tensor | None = None
    """[B, K] the position in the input of every state; None after soft deletion, where they are all there."""
    gate: Tensor | None = None
    """[B, S] the sigmoid at every input position; 0 at the end of sequence and at padding."""


def states_and_mask(output: BaseModelOutput, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return the states [B, K, D] of `CrossModalNetwork.encode` and the mask [B, K] that decoders take.

    `mask` [B, S] is that of the input.
    """
    states = output.last_hidden_state
    assert states is not None
    if isinstance(output, GatedStates):
        return states, output.mask
    return states, mask if mask is None or not mask.is_floating_point() else mask != 0


def input_weights(output: BaseModelOutput, weights: Tensor, rows: slice = slice(None)) -> Tensor:
    """Return `weights` [R, ..., K] of the states of `rows` as weights [R, ..., S] of the input's positions.

    Deleted positions have 0.
    """
    if not isinstance(output, GatedStates) or output.positions is None:
        return weights
    assert output.gate is not None
    positions = output.positions[rows].view(len(weights), *[1] * (weights.ndim - 2), -1).expand_as(weights)
    spread = weights.new_zeros(*weights.shape[:-1], output.gate.shape[1])
    return spread.scatter(-1, positions, weights)


def decide(gate: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return which positions stay, [B, S] bool, and `gate` [B, S] with 0 at the end of sequence and at padding.

    `mask` [B, S] marks valid positions, None for all. The last valid position of a row always stays.
    """
    places = torch.arange(gate.shape[1], device=gate.device)
    if mask is None:
        is_free = (places < gate.shape[1] - 1).expand_as(gate)
        valid = torch.ones_like(is_free)
    else:
        valid = mask != 0
        last = torch.where(valid, places, -1).amax(1, keepdim=True)
        is_free = valid & (places != last)
    gate = gate.masked_fill(~is_free, 0.0)
    return valid & (gate <= 0.5), gate


@dataclass(frozen=True)
class Shortened:
    """The kept positions of every row, at its beginning."""

    positions: Tensor  # [B, K] in the input
    valid: Tensor  # [B, K] bool; False at padding

    @classmethod
    def of(cls, kept: Tensor) -> "Shortened":
        """Return the positions at which `kept` [B, S] is true. Waits for the device."""
        counts = kept.sum(1)
        length = _padded(int(counts.max()), kept.shape[1])
        positions = torch.argsort((~kept).byte(), dim=1, stable=True)[:, :length]
        return cls(positions, torch.arange(length, device=kept.device) < counts[:, None])

    def take(self, values: Tensor) -> Tensor:
        """Return [B, K, ...] of `values` [B, S, ...]."""
        index = self.positions.view(*self.positions.shape, *[1] * (values.ndim - 2))
        return values.gather(1, index.expand(*self.positions.shape, *values.shape[2:]))


def scores(gate: Tensor, valid: Tensor | None) -> Tensor:
    """Return G [B, S] of a gate's sigmoid [B, S], minus infinity where `valid` [B, S] is zero."""
    return encoder_mask.join(valid, SCALE * gate)


def _padded(count: int, length: int) -> int:
    """Return the length of rows of up to `count` of `length` positions."""
    step = ALIGNMENT * -(-length // (ALIGNMENT * MAX_LENGTHS))
    return min(-(-max(count, 1) // step) * step, length)
