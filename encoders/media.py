"""Image sizes that keep the aspect ratio; resampling of waveforms; lengths after convolutions over time."""

from collections.abc import Sequence
from functools import lru_cache
from math import gcd, sqrt
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kebyt5_xm.errors import UserError

MAX_ASPECT_RATIO = 200
"""Longer images are refused where a library first scales the short side up: 100,000 x 1 pixels would become
millions wide. The same limit is Qwen2-VL's own (its `smart_resize` in transformers)."""

MAX_RESAMPLING_RATIO = 1 << 24
"""Bound on the product of the two rates over their common divisor, which is about the size of the filter:
44.1 kHz to 16 kHz needs 441 * 160 = 70,560; two rates without a common divisor would take gigabytes."""

Length = TypeVar("Length", int, Tensor)
Convolution = tuple[int, int, int]
"""(kernel, stride, padding) of one convolution over time."""


def fit_area(height: int, width: int, area: int, multiple: int) -> tuple[int, int]:
    """Return (height, width) scaled down to at most `area` pixels, never up, in multiples of `multiple`.

    The aspect ratio is kept as far as the rounding down allows; no side falls below one multiple.
    """
    scale = min(1.0, sqrt(area / (height * width)))
    # A very long and thin image would outgrow the area where its short side is rounded up to one multiple.
    longest = max(multiple, area // multiple // multiple * multiple)
    sides = (max(multiple, int(side * scale) // multiple * multiple) for side in (height, width))
    new_height, new_width = (min(side, longest) for side in sides)
    return new_height, new_width


def refuse_thin(width: int, height: int) -> None:
    """Raise `UserError` for an image (in pixels) more than `MAX_ASPECT_RATIO` times longer than wide."""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UserError(
            f"found an image of {width} x {height} pixels, expected sides within a factor of {MAX_ASPECT_RATIO}; "
            "leave it out or cut it into pieces"
        )


def resampled_length(num_samples: int, sample_rate: int, target_rate: int) -> int:
    """Return the number of samples after resampling: the ceiling of the exact ratio, as torchaudio has it."""
    _check_rates(sample_rate, target_rate)
    return -(-num_samples * target_rate // sample_rate)


def resample(waveform: NDArray[np.float32], sample_rate: int, target_rate: int) -> Tensor:
    """Return the waveform [samples] (float32) at `target_rate` Hz."""
    # A copy: the decoded array may be read-only memory, which torch would warn about.
    samples = torch.from_numpy(np.array(waveform, dtype=np.float32))
    if sample_rate == target_rate:
        return samples
    _check_rates(sample_rate, target_rate)
    return _resampler(sample_rate, target_rate)(samples)


def conv_length(length: Length, stack: Sequence[Convolution]) -> Length:
    """Return the length after the stack; below one where the input is too short for it."""
    for kernel, stride, padding in stack:
        length = (length + 2 * padding - kernel) // stride + 1
    return length


def shortest_input(stack: Sequence[Convolution]) -> int:
    """Return the smallest input length of which the stack makes one feature."""
    length = 1
    for kernel, stride, padding in reversed(stack):
        length = max(1, (length - 1) * stride + kernel - 2 * padding)
    return length


def refuse_short(num_samples: int, shortest: int, sample_rate: int) -> None:
    """Raise `UserError` if a recording has fewer samples (at `sample_rate` Hz) than one feature takes."""
    if num_samples < shortest:
        raise UserError(
            f"found a recording of {num_samples} samples at {sample_rate} Hz, expected at least {shortest} "
            f"({1000 * shortest / sample_rate:.0f} ms); leave it out or use a longer one"
        )


def _check_rates(sample_rate: int, target_rate: int) -> None:
    if sample_rate <= 0:
        raise UserError(f"found a sample rate of {sample_rate} Hz, expected a positive one; correct the file")
    common = gcd(sample_rate, target_rate)
    if (sample_rate // common) * (target_rate // common) > MAX_RESAMPLING_RATIO:
        raise UserError(
            f"found a recording at {sample_rate} Hz, expected a rate with a common divisor with {target_rate} Hz; "
            f"convert it to {target_rate} Hz first"
        )


@lru_cache(maxsize=16)
def _resampler(sample_rate: int, target_rate: int) -> nn.Module:
    try:
        from torchaudio.transforms import Resample
    except ImportError as error:
        raise UserError(
            f"found a recording at {sample_rate} Hz where {target_rate} Hz is needed, and torchaudio, which "
            "resamples, is not installed; run: pip install 'kebyt5-xm[audio]'"
        ) from error
    return Resample(sample_rate, target_rate)
