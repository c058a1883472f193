"""A modality: a name, an encoder and an adapter, as a recipe gives them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.data.media.feature_cache import FeatureCache
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.encoder import Encoder


@dataclass
class Modality:
    """One entry of `model.modalities` in a recipe.

    Args:
        encoder: class and arguments of the encoder.
        adapter: class and arguments of the adapter; `in_dim` and `d_model` come from the model.
        weights: start from a folder of `kebyt5_xm.model.adapter_folder.save_adapter`, such as EXPORT/adapters/NAME;
            the backbone must be the one that it was trained on.
        cache: folder of features that `kebyt5-xm cache` has computed; the encoder must be frozen, and does not run
            in training.
    """

    encoder: Callable[[], Encoder]
    adapter: Callable[[int, int], Adapter]
    weights: str | None = None
    cache: str | None = None


def interface(
    encoder: Encoder,
    adapter: Callable[[int, int], Adapter],
    d_model: int,
    cache: FeatureCache | None = None,
) -> MediaInterface:
    """Return the data side of a modality."""
    with torch.device("meta"):
        twin = adapter(encoder.out_dim, d_model)
    return MediaInterface(encoder.media, encoder.preprocessor(), twin, cache)
