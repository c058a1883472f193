"""A modality: a name, an encoder and an adapter, as a recipe gives them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.encoder import Encoder, Header, Media, Preprocessor, header_of


@dataclass
class Modality:
    """One entry of `model.modalities` in a recipe.

    Args:
        encoder: class and arguments of the encoder.
        adapter: class and arguments of the adapter; `in_dim` and `d_model` come from the model.
        weights: start from a folder of `kebyt5_xm.adapter_folder.save_adapter`, such as EXPORT/adapters/NAME; the
            backbone must be the one that it was trained on.
    """

    encoder: Callable[[], Encoder]
    adapter: Callable[[int, int], Adapter]
    weights: str | None = None


@dataclass
class MediaInterface:
    """What the data side knows of a modality: how to prepare a medium, and how many slots it will fill.

    It has no weights and can be sent to data workers: the adapter in it is a twin on the meta device.
    """

    media: Media
    preprocessor: Preprocessor
    adapter: Adapter

    def num_slots(self, header: Header) -> int:
        """Return the exact number of slots of a medium with this header; raises `UserError` for an impossible one."""
        return self.adapter.num_slots(self.preprocessor.size(header))

    def fingerprint(self) -> str:
        """Return a hash of all that decides what is prepared and how many slots it fills."""
        plain = (bool, int, float, str, tuple, list, type(None))
        values = sorted((k, repr(v)) for k, v in vars(self.adapter).items() if isinstance(v, plain))
        text = f"{self.preprocessor.fingerprint()}{type(self.adapter).__qualname__}{values}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def prepare(self, item: Any) -> tuple[torch.Tensor, int]:
        """Return the prepared tensor of a decoded medium and the number of slots that it fills.

        Raises `UserError` for a medium of which no features can be made.
        """
        slots = self.num_slots(header_of(item))
        return self.preprocessor.prepare(item), slots


def interface(encoder: Encoder, adapter: Callable[[int, int], Adapter], d_model: int) -> MediaInterface:
    """Return the data side of a modality."""
    with torch.device("meta"):
        twin = adapter(encoder.out_dim, d_model)
    return MediaInterface(encoder.media, encoder.preprocessor(), twin)
