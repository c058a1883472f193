"""The splice: writes adapter vectors at their slots in the embedded byte sequence.

One function, used by training and by generation. Letters in shapes: B rows, S encoder positions, D d_model,
N items of one encoder call, M slots of an item (padded).
"""

import torch
from torch import Tensor

from kebyt5_xm.data.inputs import MediaGroup
from kebyt5_xm.errors import UserError


def splice(embedded: Tensor, vectors: Tensor, mask: Tensor, group: MediaGroup) -> Tensor:
    """Return `embedded` [B, S, D] with `vectors` [N, M, D] written at the slots of `group`.

    `mask` [N, M] marks the valid vectors, which come first. Raises `UserError` with row and modality if an item's
    number of vectors is not its number of slots; vectors are never cut.
    """
    found = mask.sum(1)
    if not torch.equal(found, group.count.to(found)):
        item = int((found != group.count.to(found)).nonzero()[0])
        raise UserError(
            f"modality '{group.modality}': item {item} of row {int(group.row[item])} fills {int(group.count[item])} "
            f"slots, but its adapter made {int(found[item])} vectors; the encoder's size() and forward() disagree"
        )
    item, place = mask.nonzero(as_tuple=True)
    positions = (group.row[item], group.start[item] + place)
    return embedded.index_put(positions, vectors[item, place].to(embedded.dtype))


def slot_positions(shape: torch.Size, groups: list[MediaGroup], device: torch.device) -> Tensor:
    """Return [B, S] bool, True at every slot."""
    slots = torch.zeros(shape, dtype=torch.bool, device=device)
    position = torch.arange(shape[1], device=device)
    for group in groups:
        stop = group.start + group.count
        inside = (position >= group.start[:, None]) & (position < stop[:, None])  # [N, S]
        item, place = inside.nonzero(as_tuple=True)
        slots[group.row[item], place] = True
    return slots
