"""Dropout of the vectors that images and recordings write into their slots: regularises small tasks with media.

Random numbers come from the generator that a training step seeds by (seed, step, micro-batch, rank), as all dropout.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kebyt5_xm.errors import UserError


@dataclass
class SlotDropout:
    """Vectors that are replaced by zeros in training: `model.modalities.NAME.dropout` in a recipe.

    The slots stay, and the vectors that are left are not scaled: each is what it is when all are there.

    Args:
        slots: probability of each vector, begin and end vectors included.
        media: probability that all vectors of a medium are replaced; the model then answers from the text.
    """

    slots: float = 0.0
    media: float = 0.0

    def check(self, where: str) -> None:
        """Raise `UserError` for values out of range. Not in `__post_init__`: parsers build instances on the way."""
        for name, value in (("slots", self.slots), ("media", self.media)):
            if not 0 <= value < 1:
                raise UserError(f"{where}.{name} is {value:g}; expected a probability from 0 to less than 1")
        if not self.slots and not self.media:
            raise UserError(f"{where} drops nothing; give slots or media, such as slots: 0.1, or take it out")

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return vectors [N, M, D] of N media with M slots each, some replaced by zeros."""
        num_media, num_slots, _ = vectors.shape
        # One draw for each medium and one for each slot, whatever the probabilities: they change no other's mask.
        media = torch.rand(num_media, 1, device=vectors.device) >= self.media
        slots = torch.rand(num_media, num_slots, device=vectors.device) >= self.slots
        return vectors * (media & slots)[..., None]
