"""Reads precomputed arrays as float32: .npy (pickles are refused) and .safetensors with one tensor."""

import io
import json
import math
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.bad_sample import LimitRefusal
from kebyt5_xm.data.media.reference import Limits, MediaRefusal, Readable, open_readable

if TYPE_CHECKING:
    from kebyt5_xm.encoder import ArrayHeader

# Type names of safetensors. bfloat16, which numpy lacks, is the upper half of a float32.
SAFETENSORS_TYPES = {"BF16": "<u2"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}"
    for kind, sizes in {"F": (2, 4, 8), "I": (1, 2, 4, 8), "U": (1, 2, 4, 8)}.items()
    for size in sizes
}
ZIP = b"PK\x03\x04"
MAX_HEADER_BYTES = 1 << 20  # bytes; one tensor needs about a hundred


def open_array(source: Readable, limits: Limits | None = None) -> NDArray[np.float32]:
    """Return the array as float32; raise `MediaError` if it is unreadable or has NaN or infinite values."""
    with open_readable(source) as stream:
        shape, is_numpy = _read_shape(stream, limits or Limits())
        stream.seek(0)
        array = np.load(stream, allow_pickle=False) if is_numpy else _read_tensor(stream.read())
        with np.errstate(over="ignore"):  # a value beyond float32 becomes infinite and is refused below
            values = np.ascontiguousarray(array, dtype=np.float32)
        assert values.shape == shape, (values.shape, shape)
        if not np.isfinite(values).all():
            raise MediaRefusal("found values that are NaN, infinite or too large for float32")
        return values


def read_array_header(source: Readable, limits: Limits | None = None) -> "ArrayHeader":
    """Return the shape without reading the values; raise `MediaError` as `open_array` would."""
    from kebyt5_xm.encoder import ArrayHeader

    with open_readable(source) as stream:
        return ArrayHeader(shape=_read_shape(stream, limits or Limits())[0])


def _read_shape(stream: BinaryIO, limits: Limits) -> tuple[tuple[int, ...], bool]:
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    is_numpy = stream.read(6) == np.lib.format.MAGIC_PREFIX
    stream.seek(0)
    if is_numpy:
        shape, dtype = _read_npy_header(stream)
    else:
        shape, dtype = _read_safetensors_header(stream, size)
    if dtype.kind not in "fiu":
        raise MediaRefusal(f"found values of type {dtype}, expected real numbers")
    if not shape or not math.prod(shape) or min(shape) < 0:
        raise MediaRefusal(f"found an array of shape {shape}, expected at least one axis and one value")
    if math.prod(shape) > limits.max_values:
        raise LimitRefusal(
            f"found {math.prod(shape)} values, expected at most {limits.max_values}; raise max_values to "
            "permit it"
        )
    found, expected = size - stream.tell(), math.prod(shape) * dtype.itemsize
    if found < expected:
        raise MediaRefusal(
            f"truncated: the header announces {math.prod(shape)} values, but the file is too short for them"
        )
    if found > expected:
        raise MediaRefusal(
            f"found {found - expected} bytes behind the values that the header announces, expected one array per file"
        )
    return shape, is_numpy


def _read_npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype


def _read_safetensors_header(stream: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    beginning = stream.read(8)
    if beginning.startswith(ZIP):
        raise MediaRefusal(
            "found a .npz or a file of torch.save, expected .npy or .safetensors; save the array on its own"
        )
    length = int.from_bytes(beginning, "little")
    if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
        raise MediaRefusal("found neither a .npy nor a .safetensors file")
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    if len(header) != 1:
        raise MediaRefusal(f"found {len(header)} tensors, expected one")
    (tensor,) = header.values()
    if tensor["dtype"] not in SAFETENSORS_TYPES:
        raise MediaRefusal(
            f"found values of type {tensor['dtype']}, expected one of {', '.join(SAFETENSORS_TYPES)}"
        )
    return tuple(tensor["shape"]), np.dtype(SAFETENSORS_TYPES[tensor["dtype"]])


def _read_tensor(raw: bytes) -> NDArray[Any]:
    import safetensors

    ((_, tensor),) = safetensors.deserialize(raw)
    values = np.frombuffer(tensor["data"], dtype=SAFETENSORS_TYPES[tensor["dtype"]]).reshape(tensor["shape"])
    return (values.astype(np.uint32) << 16).view(np.float32) if tensor["dtype"] == "BF16" else values
