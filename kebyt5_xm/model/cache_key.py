"""The key of a feature cache: a hash of the encoder and its preprocessing."""

import hashlib
from pathlib import Path

from kebyt5_xm.data.media.feature_cache import DIGEST_BYTES, tensor_bytes
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError

_PLAIN = (bool, int, float, str, tuple, type(None))
_NOT_A_SETTING = {"training"}


def encoder_key(encoder: Encoder) -> str:
    """Return a hash of an encoder's classes, plain settings (such as its layer), weights, buffers, preprocessing."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(encoder.preprocessor().fingerprint().encode())
    for name, module in encoder.named_modules():
        settings = sorted(
            (k, repr(v)) for k, v in vars(module).items() if isinstance(v, _PLAIN) and k not in _NOT_A_SETTING
        )
        digest.update(f"{name} {type(module).__module__}.{type(module).__qualname__} {settings}".encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def cache_folder(cache: str | None, encoder: Encoder) -> Path:
    """Return the folder of an encoder's features in a cache; raise `UserError` for an encoder that learns."""
    assert cache is not None
    if not encoder.has_fixed_features:
        raise UserError(
            f"a cache holds the features of a frozen encoder, but {type(encoder).__name__} learns; set `frozen: "
            "true` in its init_args, or take `cache` out"
        )
    return Path(cache) / encoder_key(encoder)
