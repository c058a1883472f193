"""A modality as a recipe gives it (an encoder and an adapter), its data side, and the key of its feature cache."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.data.media.feature_cache import DIGEST_BYTES, FeatureCache, tensor_bytes
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.slot_dropout import SlotDropout

_SETTING_TYPES = (bool, int, float, str, tuple, type(None))


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
        dropout: slots and media whose vectors are replaced by zeros in training; none by default.
    """

    encoder: Callable[[], Encoder]
    adapter: Callable[[int, int], Adapter]
    weights: str | None = None
    cache: str | None = None
    dropout: SlotDropout | None = None


def interface(
    encoder: Encoder,
    adapter: Callable[[int, int], Adapter],
    d_model: int,
    cache: FeatureCache | None = None,
) -> MediaInterface:
    """Return the data side of a modality."""
    with torch.device("meta"):
        meta_adapter = adapter(encoder.out_dim, d_model)
    return MediaInterface(encoder.media, encoder.preprocessor(), meta_adapter, cache)


def encoder_key(encoder: Encoder) -> str:
    """Return a hash of the encoder's classes, plain settings (such as its layer), weights, buffers, preprocessing."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(encoder.preprocessor().fingerprint().encode())
    for name, module in encoder.named_modules():
        settings = sorted(
            (k, repr(v)) for k, v in vars(module).items() if isinstance(v, _SETTING_TYPES) and k != "training"
        )
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__} {settings}".encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def cache_folder(cache: str | None, encoder: Encoder) -> Path:
    """Return the folder of the encoder's features in a cache; raise `UserError` if the encoder is not frozen."""
    assert cache is not None
    if not encoder.has_fixed_features:
        raise UserError(
            f"a cache holds the features of a frozen encoder, but {type(encoder).__name__} trains; set `frozen: "
            "true` in its init_args, or remove `cache`"
        )
    return Path(cache) / encoder_key(encoder)
