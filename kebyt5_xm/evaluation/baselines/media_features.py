"""One vector of fixed length for an image, a recording or an array: what a linear probe sees.

Letters in shapes: N media, F features of one medium (R x C in a grid) of W numbers, V the length of its vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kebyt5_xm.encoder import Encoder, Media
from kebyt5_xm.model.modality import encoder_key

GRID = 4
"""Rows and columns to which a grid of features is averaged. Our own choice: it keeps where things are, coarsely."""
SEGMENTS = 8
"""Equal stretches of time of which mean and deviation are taken. Our own choice: a short word has about as many
sounds."""
PIXELS = 16
"""Height and width to which images are reduced without an encoder."""
SAMPLE_RATE, NUM_MELS = 16_000, 40
"""Of log-mel frames without an encoder: the usual rate of speech recognition, and its usual number of bands."""
WINDOW, HOP = 400, 160
"""Samples of a frame and from one to the next: 25 ms every 10 ms, the usual choice since Kaldi."""


class FeatureMaker(ABC):
    """Turns decoded media of one modality into vectors."""

    name: str
    """What the vectors are made of, as `kebyt5_xm.evaluation.baseline_scores.Baseline.features` has it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Return what decides the vectors: equal keys mean equal vectors of equal media."""

    @abstractmethod
    def prepare(self, item: Any) -> Tensor:
        """Return what `vectors` needs of one decoded medium. Raises `UserError` if it cannot be used."""

    @abstractmethod
    def vectors(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        """Return [N, V]."""


class Raw(FeatureMaker):
    """Vectors without an encoder: an image in 16 x 16 pixels, log-mel frames of a recording, or an array itself."""

    def __init__(self, media: Media) -> None:
        self.media = media
        self.name = {"image": "pixels", "audio": "log-mel", "array": "array"}[media]

    @property
    def key(self) -> str:
        return f"{self.name} {PIXELS} {SAMPLE_RATE} {NUM_MELS} {WINDOW} {HOP} {GRID} {SEGMENTS}"

    def prepare(self, item: Any) -> Tensor:
        if self.media == "image":
            small = item.resize((PIXELS, PIXELS), resample=2)  # bilinear; Pillow averages where it reduces
            return torch.from_numpy(np.asarray(small, dtype=np.float32).ravel() / 255)
        if self.media == "audio":
            return pool_sequence(log_mel(*item))
        array = torch.from_numpy(np.array(item, dtype=np.float32))
        if array.ndim == 3:
            return pool_grid(array.flatten(0, 1), (array.shape[0], array.shape[1]))
        return pool_sequence(array.reshape(-1, array.shape[-1] if array.ndim else 1))

    def vectors(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        return torch.stack(list(prepared)).numpy()


class FrozenFeatures(FeatureMaker):
    """The pooled features of an encoder as it is, in eval mode."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.name = type(encoder).__name__
        self._preprocessor = encoder.preprocessor()

    @property
    def key(self) -> str:
        return f"{encoder_key(self.encoder)} {GRID} {SEGMENTS}"

    def prepare(self, item: Any) -> Tensor:
        return self._preprocessor.prepare(item)

    @torch.no_grad()
    def vectors(self, prepared: Sequence[Tensor]) -> NDArray[np.float32]:
        weight = next(self.encoder.parameters(), None)
        device = torch.device("cpu") if weight is None else weight.device
        was_training = self.encoder.training
        self.encoder.eval()
        found: dict[int, Tensor] = {}
        for group in self._preprocessor.group(prepared):
            batch, lengths = self._preprocessor.collate([prepared[n] for n in group])
            encoded = self.encoder(batch.to(device), lengths.to(device))
            features, mask = encoded.features.float().cpu(), encoded.mask.cpu()
            for n, row, valid in zip(group, features, mask, strict=True):
                is_grid = encoded.grid is not None and bool(valid.all())
                found[n] = pool_grid(row, encoded.grid) if is_grid else pool_sequence(row[valid])
        self.encoder.train(was_training)
        return torch.stack([found[n] for n in range(len(prepared))]).numpy()


def pool_grid(features: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Return [GRID * GRID * W]: the means of the parts of a grid of features [R * C, W]."""
    assert grid is not None
    planes = features.T.reshape(1, features.shape[1], *grid)  # [1, W, R, C]
    return functional.adaptive_avg_pool2d(planes, GRID).flatten()


def pool_sequence(features: Tensor) -> Tensor:
    """Return [2 * SEGMENTS * W]: mean and deviation of the segments of features [F, W]; short ones overlap."""
    count = len(features)
    found = []
    for segment in range(SEGMENTS):
        start, stop = segment * count // SEGMENTS, -(-(segment + 1) * count // SEGMENTS)
        stretch = features[start:stop]
        found += [stretch.mean(0), stretch.std(0, correction=0)]
    return torch.cat(found)


def log_mel(waveform: NDArray[np.float32], sample_rate: int) -> Tensor:
    """Return the log-mel frames [F, NUM_MELS] of a mono recording, each band with mean 0 over the recording.

    So loudness and microphone have no effect. A recording shorter than one frame is padded with silence.
    """
    samples = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
    if sample_rate != SAMPLE_RATE:
        length = max(1, round(len(samples) * SAMPLE_RATE / sample_rate))
        # Linear: without torchaudio at hand, good enough for 40 bands.
        samples = functional.interpolate(samples[None, None], length, mode="linear").flatten()
    samples = functional.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = samples.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)  # [F, WINDOW]
    power = torch.fft.rfft(frames).abs().square()
    mel = (power @ _filters()).clamp(min=1e-6).log()
    return mel - mel.mean(0)


@cache
def _filters() -> Tensor:
    from transformers.audio_utils import mel_filter_bank

    filters = mel_filter_bank(
        WINDOW // 2 + 1, NUM_MELS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(filters.astype(np.float32))
