"""The splice: writes adapter vectors at their slots in the embedded byte sequence.

One function, used by training and by generation. Letters in shapes: B rows, S encoder positions, D d_model,
N items of one encoder call, M slots of an item (padded).
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from kebyt5_xm.data.inputs import MediaGroup
from kebyt5_xm.errors import UserError


def splice(
    embedded: Tensor, vectors: Tensor, mask: Tensor, group: MediaGroup, unchecked: "Unchecked | None" = None
) -> Tensor:
    """Return `embedded` [B, S, D] with `vectors` [N, M, D] written at the slots of `group`.

    `mask` [N, M] marks the valid vectors, which come first; vectors are never cut. Raises `UserError` with row and
    modality if an item's number of vectors is not its number of slots. With `unchecked`, which must not wait for a
    GPU, it is `unchecked` that raises later, and until then the result is NaN.
    """
    found = mask.sum(1)
    if unchecked is None:
        check_counts(found, group)
    batch, length, width = embedded.shape
    place = torch.arange(vectors.shape[1], device=embedded.device)
    position = (group.row * length + group.start)[:, None] + place  # [N, M]
    nowhere = batch * length  # vectors that fill no slot go there
    position = torch.where(place < group.count[:, None], position, nowhere)
    written = torch.cat([embedded.flatten(0, 1), embedded.new_zeros(1, width)])
    written = written.index_put((position,), vectors.to(embedded.dtype))[:nowhere]
    if unchecked is not None:
        written = written + unchecked.add(found, group).to(written.dtype)
    return written.view(batch, length, width)


def check_counts(found: Tensor, group: MediaGroup) -> None:
    """Raise `UserError` if an item's number of vectors, `found` [N], is not its number of slots."""
    wrong = [
        item
        for item, numbers in enumerate(zip(found.tolist(), group.count.tolist(), strict=True))
        if numbers[0] != numbers[1]
    ]
    if wrong:
        item = wrong[0]
        raise UserError(
            f"modality '{group.modality}': item {item} of row {int(group.row[item])} fills {int(group.count[item])} "
            f"slots, but its adapter made {int(found[item])} vectors; the encoder's size() and forward() disagree"
        )


class Unchecked:
    """The numbers of vectors of a step's media on a GPU, to be compared with those of slots when it is known anyway
    that the loss is not finite.
    """

    def __init__(self) -> None:
        self._groups: list[tuple[Tensor, MediaGroup]] = []

    def add(self, found: Tensor, group: MediaGroup) -> Tensor:
        """Remember the numbers; return 0 if they are right, else NaN: a tensor of one number."""
        self._groups.append((found, replace(group, prepared=group.prepared[:0])))
        return torch.where((found == group.count).all(), 0.0, math.nan)

    def check(self) -> None:
        """Raise `UserError` for the first wrong number."""
        for found, group in self._groups:
            check_counts(found, group)


def slot_positions(shape: torch.Size, groups: list[MediaGroup], device: torch.device) -> Tensor:
    """Return [B, S] bool, True at every slot."""
    counts = torch.zeros(shape, dtype=torch.int32, device=device)
    position = torch.arange(shape[1], device=device)
    for group in groups:
        stop = group.start + group.count
        inside = (position >= group.start[:, None]) & (position < stop[:, None])  # [N, S]
        counts.index_add_(0, group.row, inside.int())
    return counts > 0
