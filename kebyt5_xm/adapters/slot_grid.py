"""Which part of a medium each of its slots stands for."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotGrid:
    """Slots that cover a recording or an image evenly: in time, or in rows and columns.

    Args:
        first: the first slot of the grid; before it are those that stand for nothing, such as the begin vector.
        shape: (slots,) in time, or (rows, columns), whose slots stand row by row.
        extents: the share of the medium that one slot covers along each axis. The last slots may reach over its end.
    """

    first: int
    shape: tuple[int, ...]
    extents: tuple[float, ...]

    @property
    def num_slots(self) -> int:
        """Slots of the grid."""
        return math.prod(self.shape)

    @classmethod
    def of(cls, size: tuple[int, ...], slot_extent: tuple[int, ...], first: int) -> "SlotGrid":
        """Return the grid of slots that cover `slot_extent` features of an item of `size` each."""
        sides = list(zip(size, slot_extent, strict=True))
        shape = tuple(math.ceil(side / extent) for side, extent in sides)
        return cls(first, shape, tuple(extent / max(1, side) for side, extent in sides))
