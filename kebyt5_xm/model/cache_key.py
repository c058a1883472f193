"""What a feature depends on, as hashes: the encoder with its preprocessing, and the medium."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError

DIGEST_BYTES = 16
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
    if not encoder.frozen:
        raise UserError(
            f"a cache holds the features of a frozen encoder, but {type(encoder).__name__} learns; set `frozen: "
            "true` in its init_args, or take `cache` out"
        )
    return Path(cache) / encoder_key(encoder)


def media_key(content: bytes) -> bytes:
    """Return the address [16] of a medium with these bytes."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the raw bytes of a tensor of any dtype, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
