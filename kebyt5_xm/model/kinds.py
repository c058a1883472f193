"""The kind of a segment that is not text: a file's by its content, another item's by its type.

The kind of a file is that of the first reader that accepts it. Its name counts only if no reader does. So the kind is
the same on every machine.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.names import guess_media
from kebyt5_xm.data.media.opening import Excerpt, Limits, as_mono, as_rgb, read_header
from kebyt5_xm.encoder import Media
from kebyt5_xm.errors import UserError


def media_kind(item: Any, limits: Limits | None = None) -> Media | None:
    """Return the kind of an item, or None if it is unknown."""
    if isinstance(item, os.PathLike):
        return _file_kind(Path(item), limits)
    if isinstance(item, Excerpt) or _is_recording(item):
        return "audio"
    if hasattr(item, "getexif") and hasattr(item, "size"):
        return "image"
    return "array" if isinstance(item, np.ndarray | torch.Tensor) else None


def convert_item(item: Any, media: Media) -> Any:
    """Return an item in memory in the form that `open_media` returns. Raises `MediaError`, `UserError`."""
    if media == "audio":
        samples, rate = (item["array"], item["sampling_rate"]) if isinstance(item, Mapping) else item
        return as_mono(samples, rate)
    if media == "image":
        return as_rgb(_to_image(_to_array(item)) if isinstance(item, np.ndarray | torch.Tensor) else item)
    return np.asarray(_to_array(item), dtype=np.float32)


def _to_array(values: Any) -> NDArray[Any]:
    """Return values as an array; a tensor from any device, bfloat16 as float32."""
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def is_image_array(item: Any) -> bool:
    """Return whether an array can only be an image: uint8 in the shape of one."""
    return isinstance(item, np.ndarray | torch.Tensor) and _channels_last(_to_array(item)) is not None


def describe(item: Any) -> str:
    """Return an item's path, or its type and shape, for error messages."""
    if isinstance(item, Excerpt):
        return f"{item.describe()} of {describe(item.source)}"
    if isinstance(item, os.PathLike | str):
        return f"'{os.fspath(item)}'"[:200]
    if isinstance(item, np.ndarray | torch.Tensor):
        dtype = str(item.dtype).removeprefix("torch.")
        return f"a {type(item).__name__} ({dtype} {list(item.shape)})"
    return f"a {type(item).__name__}"


def _file_kind(path: Path, limits: Limits | None) -> Media | None:
    for media in get_args(Media):
        try:
            read_header(path, media, limits)
            return media
        except (MediaError, UserError):  # no such file, another kind, or no library for this one
            continue
    return guess_media(path.name)


def _is_recording(item: Any) -> bool:
    if isinstance(item, Mapping):  # the form of rows of `datasets`
        return {"array", "sampling_rate"} <= item.keys()
    if not (isinstance(item, tuple) and len(item) == 2):
        return False
    samples, rate = item
    return (
        np.ndim(rate) == 0
        and not isinstance(rate, str)
        and not isinstance(samples, str)
        and np.ndim(samples) > 0
    )


def _to_image(array: NDArray[Any]) -> Any:
    from PIL import Image

    pixels = _channels_last(array)
    if pixels is None:
        raise UserError(
            f"found an array ({array.dtype} {list(array.shape)}) for an image, expected uint8 [height, width], "
            "[height, width, 3] or [3, height, width]; scale values from 0 to 1 by (255 * x).round().astype('uint8')"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def _channels_last(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return uint8 pixels as [height, width] or [height, width, 3 or 4], or None if it may be no image."""
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        return None
    if array.ndim == 2:
        return array
    last, first = array.shape[2] in (1, 3, 4), array.shape[0] in (1, 3, 4)
    if last == first:  # neither, or both
        return None
    array = array if last else array.transpose(1, 2, 0)
    return array[:, :, 0] if array.shape[2] == 1 else array
