"""Packed decoder rows of labels: each sees itself and the whole encoder row."""

from dataclasses import dataclass

from torch import Tensor

from kebyt5_xm.data.inputs import Packing


@dataclass
class LabelPacking(Packing):
    """Labels in one decoder row; each attends to itself and to the whole encoder row, not to other labels.

    `segments` [B, S] is 1 at the valid encoder positions, 0 at padding.
    """

    def cross_mask(self) -> Tensor:
        return (self.segments != 0)[:, None, None].expand(-1, -1, self.target_segments.shape[1], -1)
