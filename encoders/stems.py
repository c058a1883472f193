"""Small encoders to train from scratch on small data: pixels -> patches, waveform -> log-mel frames.

They only prepare features; the T5 encoder does the rest.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.media import Convolution, conv_length, fit_area, refuse_short, resample, resampled_length
from kebyt5_xm.encoder import (
    AudioHeader,
    Encoded,
    Encoder,
    Header,
    ImageHeader,
    Preprocessor,
    Size,
    length_mask,
)
from kebyt5_xm.errors import UserError, did_you_mean

Normalize = Literal["recording", "fixed"]

FIXED_MEAN, FIXED_DEVIATION = -8.0, 4.0
"""Mean and deviation of log-mel frames, rounded: -7.8 and 4.1 over every seventh of the demo's 2,800 recordings
(2026-11-27)."""


@dataclass(frozen=True)
class PatchPreprocessor(Preprocessor):
    """Resizes the whole image to `image_size` (height, width) and scales pixels to [-1, 1].

    With `keep_aspect_ratio` the image is only scaled down to at most that area.
    """

    image_size: tuple[int, int]
    patch_size: int
    keep_aspect_ratio: bool

    def size(self, header: Header) -> Size:
        assert isinstance(header, ImageHeader)
        height, width = self._fit(header.height, header.width)
        return height // self.patch_size, width // self.patch_size

    def prepare(self, item: Any) -> Tensor:  # -> [3, height, width]
        height, width = self._fit(item.height, item.width)
        if (item.width, item.height) != (width, height):
            item = item.resize((width, height), resample=3)  # bicubic
        pixels = torch.from_numpy(np.array(item.convert("RGB"), dtype=np.float32))
        return pixels.permute(2, 0, 1) / 127.5 - 1

    def _fit(self, height: int, width: int) -> tuple[int, int]:
        if not self.keep_aspect_ratio:
            return self.image_size
        return fit_area(height, width, self.image_size[0] * self.image_size[1], self.patch_size)


class PatchEncoder(Encoder):
    """Patches of `patch_size` pixels, a power of two, by convolutions of stride 2.

    `image_size` in pixels is a square or (height, width), multiples of `patch_size`; see `PatchPreprocessor`.
    Convolutions instead of one linear layer per patch learn better from little data (Xiao et al. 2021, arXiv
    2106.14881). Sinusoids of row and column give each patch its position.
    """

    media = "image"

    def __init__(
        self,
        image_size: int | tuple[int, int] = 32,
        patch_size: int = 8,
        out_dim: int = 128,
        keep_aspect_ratio: bool = False,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        steps = power_of_two(patch_size, "patch_size")
        if height < 1 or width < 1 or height % patch_size or width % patch_size:
            raise UserError(
                f"found an image_size of {height} x {width}, expected multiples of patch_size {patch_size}; "
                "change one"
            )
        if out_dim % 4 or out_dim >> (steps - 1) < 1:
            raise UserError(
                f"found out_dim {out_dim}, expected a multiple of 4, at least {1 << (steps - 1)}; change it"
            )
        self.out_dim = out_dim
        self.patch_size = patch_size
        self._preprocessor = PatchPreprocessor((height, width), patch_size, keep_aspect_ratio)
        widths = [3, *(out_dim >> step for step in reversed(range(steps)))]
        self.patches = nn.Sequential(
            *(
                # The norm covers the whole image, which is never padded.
                nn.Sequential(
                    nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(1, wide), nn.GELU()
                )
                for narrow, wide in pairwise(widths)
            )
        )
        self.mix_channels = nn.Linear(out_dim, out_dim)
        self.place = nn.Linear(out_dim, out_dim, bias=False)
        self.norm = nn.LayerNorm(out_dim)
        self.mlp = nn.Sequential(nn.Linear(out_dim, 2 * out_dim), nn.GELU(), nn.Linear(2 * out_dim, out_dim))
        if frozen:
            self.freeze()

    def preprocessor(self) -> PatchPreprocessor:
        return self._preprocessor

    def dummy(self) -> tuple[Tensor, Tensor]:
        size = self._preprocessor.image_size
        if self._preprocessor.keep_aspect_ratio:
            size = (self.patch_size, self.patch_size)
        return torch.zeros(1, 3, *size), torch.tensor([3])

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        patches = self.patches(prepared)  # [N, W, rows, columns]
        grid = (patches.shape[2], patches.shape[3])
        features = self.mix_channels(patches.flatten(2).transpose(1, 2))  # [N, F, W]
        features = self.norm(
            features + self.place(grid_positions(*grid, self.out_dim, features.device).to(features.dtype))
        )
        features = features + self.mlp(features)
        return Encoded.full(features, grid)


@dataclass(frozen=True)
class LogMelPreprocessor(Preprocessor):
    """Waveform -> log-mel frames, each mel band with mean 0 and deviation 1 over the recording.

    Hann windows of 25 ms every 10 ms, the usual choice since Kaldi. A recording shorter than one window is padded
    with silence. `stack` holds the encoder's convolutions over the frames.
    """

    sample_rate: int
    num_mels: int
    stack: tuple[Convolution, ...]
    pads: bool = True

    @property
    def window(self) -> int:
        return self.sample_rate * 25 // 1000

    @property
    def hop(self) -> int:
        return self.sample_rate // 100

    def size(self, header: Header) -> Size:
        assert isinstance(header, AudioHeader)
        samples = resampled_length(header.num_samples, header.sample_rate, self.sample_rate)
        refuse_short(samples, 1, self.sample_rate)
        return (conv_length(self._frames(samples), self.stack),)

    def prepare(self, item: Any) -> Tensor:  # -> [frames, num_mels]
        waveform = resample(item[0], item[1], self.sample_rate)
        waveform = F.pad(waveform, (0, max(0, self.window - len(waveform))))
        frames = waveform.unfold(0, self.window, self.hop)  # [frames, window]
        spectrum = torch.fft.rfft(frames * torch.hann_window(self.window)).abs().square()
        # 1e-6 of full scale is about the noise of 16-bit samples: silence stays silence.
        mel = (spectrum @ mel_filters(self.window, self.num_mels, self.sample_rate)).clamp(min=1e-6).log()
        return self.scale(mel)

    def scale(self, mel: Tensor) -> Tensor:
        """Return the log-mel frames [frames, num_mels] (natural logarithm of power) scaled for the encoder."""
        return (mel - mel.mean(0)) / (mel.std(0, correction=0) + 1e-2)

    def _frames(self, samples: int) -> int:
        return (max(samples, self.window) - self.window) // self.hop + 1


class FixedLogMelPreprocessor(LogMelPreprocessor):
    """Waveform -> log-mel frames, on one scale for all recordings and bands.

    A subclass, so that the fingerprint of `LogMelPreprocessor` in earlier exports and caches stays valid.
    """

    def scale(self, mel: Tensor) -> Tensor:
        return (mel - FIXED_MEAN) / FIXED_DEVIATION


class LogMelEncoder(Encoder):
    """Log-mel frames through convolutions of stride 2: `stride` 4 (a power of two) gives one feature every 40 ms.

    Every convolution has kernel 3 and padding 1, and padding frames are set to zero before each, so a recording in a
    padded batch is followed by the same zeros as alone. The norms cover channels, never time.

    `normalize` chooses the scale of frames. `recording`: each mel band has mean 0 and deviation 1 over the recording.
    This removes loudness, microphone and everything constant, so a steady tone becomes silence. `fixed`: one scale
    for all recordings and bands, for steady sounds of one loudness. docs/experiments.md compares both on speech.
    """

    media = "audio"

    def __init__(
        self,
        out_dim: int = 128,
        stride: int = 4,
        sample_rate: int = 16000,
        num_mels: int = 80,
        frozen: bool = False,
        normalize: Normalize = "recording",
    ) -> None:
        super().__init__()
        num_convs = power_of_two(stride, "stride")
        if normalize not in PREPROCESSORS:
            raise UserError(
                f"found normalize '{normalize}', expected one of {', '.join(PREPROCESSORS)}"
                f"{did_you_mean(normalize, PREPROCESSORS)}; change it"
            )
        if sample_rate % 200:
            raise UserError(f"found a sample_rate of {sample_rate} Hz, expected a multiple of 200; change it")
        self.out_dim = out_dim
        stack = ((3, 2, 1),) * num_convs
        self._preprocessor = PREPROCESSORS[normalize](sample_rate, num_mels, stack)
        mel_filters(self._preprocessor.window, num_mels, sample_rate)  # raises now if a filter is empty
        widths = [num_mels] + [out_dim] * num_convs
        self.convs = nn.ModuleList(
            nn.Conv1d(narrow, wide, kernel, conv_stride, padding)
            for narrow, wide, (kernel, conv_stride, padding) in zip(
                widths[:-1], widths[1:], stack, strict=True
            )
        )
        self.norms = nn.ModuleList(nn.LayerNorm(out_dim) for _ in stack)
        if frozen:
            self.freeze()

    def preprocessor(self) -> LogMelPreprocessor:
        return self._preprocessor

    def dummy(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 1, self._preprocessor.num_mels), torch.tensor([1])

    def forward(self, prepared: Tensor, lengths: Tensor) -> Encoded:
        features, mask = prepared, length_mask(lengths, prepared.shape[1])  # [N, F, W], [N, F]
        for conv, norm, step in zip(self.convs, self.norms, self._preprocessor.stack, strict=True):
            features = (features * mask[..., None]).transpose(1, 2)
            features = F.gelu(norm(conv(features).transpose(1, 2)))
            lengths = conv_length(lengths, (step,))
            mask = length_mask(lengths, features.shape[1])
        return Encoded(features, mask)


PREPROCESSORS: dict[str, type[LogMelPreprocessor]] = {
    "recording": LogMelPreprocessor,
    "fixed": FixedLogMelPreprocessor,
}


def power_of_two(number: int, name: str) -> int:
    """Return the exponent of `number`; raise `UserError` unless it is a power of two and at least 2."""
    exponent = number.bit_length() - 1
    if number < 2 or number != 1 << exponent:
        raise UserError(f"found {name} {number}, expected a power of two, at least 2; change it")
    return exponent


def grid_positions(rows: int, columns: int, dim: int, device: torch.device) -> Tensor:
    """Return sines and cosines [rows * columns, dim] of row and column, half of the width each.

    Wavelengths range from 2 pi to 2 pi * 10,000 positions, as in Vaswani et al. 2017 (arXiv 1706.03762).
    """
    rates = 10_000.0 ** -torch.linspace(0, 1, dim // 4, device=device)
    halves = [torch.arange(n, device=device)[:, None] * rates for n in (rows, columns)]
    row, column = (torch.cat([half.sin(), half.cos()], dim=1) for half in halves)
    return torch.cat([row.repeat_interleave(columns, 0), column.repeat(rows, 1)], dim=1)


@lru_cache(maxsize=8)
def mel_filters(window: int, num_mels: int, sample_rate: int) -> Tensor:
    """Return triangular filters [window // 2 + 1, num_mels] of unit area on Slaney's mel scale.

    They are the filters of Whisper and librosa. Raises `UserError` if a filter lies between two frequencies and is
    empty.
    """
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty filters, which are refused below
        filters = mel_filter_bank(
            window // 2 + 1, num_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
        )
    if not filters.any(axis=0).all():
        raise UserError(f"found {num_mels} mel bands at {sample_rate} Hz, expected fewer; lower num_mels")
    return torch.from_numpy(filters.astype(np.float32))
