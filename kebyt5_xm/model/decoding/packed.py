"""Packed decoder rows of labels: each sees itself and the whole encoder row."""

from dataclasses import dataclass

from kebyt5_xm.data.inputs import Packing


@dataclass
class LabelPacking(Packing):
    """Labels in one decoder row; each attends to itself and to the whole encoder row, not to other labels.

    `segments` [B, S] is 1 at the valid encoder positions, 0 at padding.
    """

    @property
    def cross_segments(self) -> None:
        return None
