"""Sums of losses by part of the mixture, over micro-batches and ranks."""

import math
from dataclasses import dataclass

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from kebyt5_xm.data.batch import IGNORE_INDEX, Batch
from kebyt5_xm.vocabulary import BYTE_OFFSET

UTF8_END = BYTE_OFFSET + 0xF5
"""Ids from here on are not bytes of UTF-8 (0xF5 to 0xFF never occur, RFC 3629), so they may be sentinels."""


@dataclass(frozen=True)
class Total:
    """The sums over the targets of one part. Without targets, the loss is NaN."""

    nats: float
    targets: float
    byte_nats: float
    bytes: float

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of a target id, in nats."""
        return self.nats / self.targets if self.targets else math.nan

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text, without sentinels and ends of sequence."""
        return self.byte_nats / self.bytes / math.log(2) if self.bytes else math.nan


class Tally:
    """Sums [part, (nats, targets, nats of bytes, bytes)], kept on the device until they are read."""

    def __init__(self, num_parts: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self._sums = torch.zeros(num_parts, 4, device=device, dtype=dtype)

    def add(self, batch: Batch, losses: Tensor) -> None:
        """Add the losses [B, T] of a batch."""
        losses = losses.detach().to(self._sums.dtype)
        is_target = batch.labels != IGNORE_INDEX
        is_byte = (batch.labels >= BYTE_OFFSET) & (batch.labels < UTF8_END)
        figures = torch.stack([losses, is_target, losses * is_byte, is_byte], dim=-1).to(self._sums.dtype)
        if batch.part.ndim == 1:
            self._sums.index_add_(0, batch.part, figures.sum(1))
        else:  # packed rows have examples of several parts
            self._sums.index_add_(0, batch.part.flatten(), figures.flatten(0, 1))

    def totals(self, strategy: Strategy | None = None) -> tuple[list[Total], Total]:
        """Return the totals of every part and of all parts, summed over the ranks of `strategy`.

        Every rank must call it.
        """
        sums = self._sums if strategy is None else strategy.reduce(self._sums, reduce_op="sum")
        assert isinstance(sums, Tensor)
        return [Total(*row) for row in sums.tolist()], Total(*sums.sum(0).tolist())
