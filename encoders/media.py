"""Image sizes that keep the aspect ratio; resampling of waveforms; lengths after convolutions over time."""

from collections.abc import Sequence
from functools import lru_cache
from math import gcd, sqrt
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from kebyt5_xm.errors import UserError

MAX_ASPECT_RATIO = 200
"""Longer images are refused if a library first scales the short side up: 100,000 x 1 pixels would become
millions wide. Qwen2-VL has the same limit (`smart_resize` in transformers)."""

MAX_RESAMPLING_RATIO = 1 << 24
"""Limit of the product of the two rates, each divided by their common divisor: about the size of the filter.
44.1 kHz to 16 kHz needs 441 * 160 = 70,560; two rates without a common divisor would need gigabytes."""

Length = TypeVar("Length", int, Tensor)
Convolution = tuple[int, int, int]
"""(kernel, stride, padding) of one convolution over time."""


def fit_area(height: int, width: int, area: int, multiple: int) -> tuple[int, int]:
    """Return (height, width) scaled down, never up, to at most `area` pixels and to multiples of `multiple`.

    The aspect ratio is kept except for rounding down; no side is smaller than one multiple.
    """
    scale = min(1.0, sqrt(area / (height * width)))
    # Rounding a short side up to one multiple would make a very long and thin image larger than the area.
    longest = max(multiple, area // multiple // multiple * multiple)
    sides = (max(multiple, int(side * scale) // multiple * multiple) for side in (height, width))
    new_height, new_width = (min(side, longest) for side in sides)
    return new_height, new_width


def refuse_thin(width: int, height: int) -> None:
    """Raise `UserError` for an image (in pixels) more than `MAX_ASPECT_RATIO` times longer than wide."""
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise UserError(
            f"found an image of {width} x {height} pixels, expected sides within a factor of {MAX_ASPECT_RATIO}; "
            "remove it or cut it into pieces"
        )


def resampled_length(num_samples: int, sample_rate: int, target_rate: int) -> int:
    """Return the number of samples after resampling: the exact ratio rounded up, as in torchaudio."""
    _check_rates(sample_rate, target_rate)
    return -(-num_samples * target_rate // sample_rate)


def resample(waveform: NDArray[np.float32], sample_rate: int, target_rate: int) -> Tensor:
    """Return the waveform [samples] (float32) at `target_rate` Hz."""
    # A copy, because torch warns about read-only memory.
    samples = torch.from_numpy(np.array(waveform, dtype=np.float32))
    if sample_rate == target_rate:
        return samples
    length = resampled_length(len(samples), sample_rate, target_rate)
    resampled = _resampler(sample_rate, target_rate)(samples)
    # torchaudio computes the length in float32, which is off by a sample for some recordings of minutes.
    return functional.pad(resampled, (0, max(0, length - len(resampled))))[:length]


def conv_length(length: Length, stack: Sequence[Convolution]) -> Length:
    """Return the length after the stack of convolutions; less than one if the input is too short."""
    for kernel, stride, padding in stack:
        length = (length + 2 * padding - kernel) // stride + 1
    return length


def shortest_input(stack: Sequence[Convolution]) -> int:
    """Return the smallest input length that gives one feature."""
    length = 1
    for kernel, stride, padding in reversed(stack):
        length = max(1, (length - 1) * stride + kernel - 2 * padding)
    return length


def refuse_short(num_samples: int, shortest: int, sample_rate: int) -> None:
    """Raise `UserError` if a recording has fewer than `shortest` samples (at `sample_rate` Hz)."""
    if num_samples < shortest:
        raise UserError(
            f"found a recording of {num_samples} samples at {sample_rate} Hz, expected at least {shortest} "
            f"({1000 * shortest / sample_rate:.0f} ms); remove it or use a longer one"
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
            f"found a recording at {sample_rate} Hz, expected {target_rate} Hz, and torchaudio, which "
            "resamples, is not installed; run: pip install 'kebyt5-xm[audio]'"
        ) from error
    return Resample(sample_rate, target_rate)
