"""Changes of recordings: speed, loudness, and the sound of a room."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kebyt5_xm.data.augmentation.transformation import Transformation, check_range
from kebyt5_xm.errors import UserError

Recording = tuple[NDArray[np.float32], int]
"""Mono samples [samples], and the sample rate in Hz."""

MAX_DECIBELS = 200.0
"""Of any gain or ratio, either way. float32 holds the power of a recording that is changed so much."""
MAX_ROOM_SECONDS = 100.0
"""Beyond any hall (our choice); the response of a room is held in memory."""
FALL_DECIBELS = 60.0
"""A room's reverberation time is the time in which its sound falls by so much (RT60)."""


class Speed(Transformation):
    """Plays a recording faster or slower, which also changes its pitch.

    All recordings of an example have one factor of a list, so that their slots are known from their headers.

    Args:
        factors: speeds, each equally likely, in hundredths; 1.1 is faster. The default is that of Ko et al. 2015
            ("Audio augmentation for speech recognition"), as in Kaldi's recipes.
    """

    kind = "audio"

    def __init__(self, factors: tuple[float, ...] = (0.9, 1.0, 1.1)) -> None:
        super().__init__()
        if not factors or any(not 0.5 <= f <= 2 or abs(100 * f - round(100 * f)) > 1e-6 for f in factors):
            raise UserError(
                f"Speed has the factors {list(factors)}, expected a list of speeds from 0.5 to 2 in hundredths, such "
                "as [0.9, 1.0, 1.1]; correct it"
            )
        self.factors = tuple(factors)

    def apply(self, item: Recording, generator: np.random.Generator) -> Recording:
        return change_speed(item, self.factors[int(generator.integers(len(self.factors)))])


def num_samples_at(speed: float, num_samples: int) -> int:
    """Return the number of samples of a recording that is played at `speed`: the exact ratio rounded up."""
    return -(-num_samples * 100 // round(100 * speed))


def change_speed(item: Recording, speed: float) -> Recording:
    """Return the recording played at `speed`."""
    if speed == 1:
        return item
    waveform, sample_rate = item
    changed = resample(waveform, round(100 * speed), 100)
    length = num_samples_at(speed, len(waveform))
    # torchaudio computes the length in float32, which is off by a sample for some recordings of minutes.
    return np.pad(changed, (0, max(0, length - len(changed))))[:length], sample_rate


class Gain(Transformation):
    """Makes a recording louder or quieter. An encoder that scales recordings by themselves does not hear it.

    Args:
        decibels: least and most gain.
        probability: share of the recordings that are changed.
    """

    kind = "audio"

    def __init__(self, decibels: tuple[float, float] = (-10.0, 6.0), probability: float = 1.0) -> None:
        super().__init__(probability)
        check_range(self, "decibels", decibels, -MAX_DECIBELS, MAX_DECIBELS)
        self.decibels = decibels

    def apply(self, item: Recording, generator: np.random.Generator) -> Recording:
        waveform, sample_rate = item
        return waveform * np.float32(10 ** (generator.uniform(*self.decibels) / 20)), sample_rate


class Room(Transformation):
    """The sound of a room: noise that falls exponentially follows the direct sound (Polack 1988).

    The recording keeps its length and its power, and its direct sound stays where it is.

    Args:
        seconds: least and most reverberation time (RT60). The default goes from a small furnished room to a hall.
        direct_db: least and most power of the direct sound relative to all reflections, in dB; less is farther away.
        probability: share of the recordings that are changed.
    """

    kind = "audio"

    def __init__(
        self,
        seconds: tuple[float, float] = (0.2, 0.8),
        direct_db: tuple[float, float] = (0.0, 10.0),
        probability: float = 0.5,
    ) -> None:
        super().__init__(probability)
        check_range(self, "seconds", seconds, 0.01, MAX_ROOM_SECONDS)
        check_range(self, "direct_db", direct_db, -MAX_DECIBELS, MAX_DECIBELS)
        self.seconds, self.direct_db = seconds, direct_db

    def apply(self, item: Recording, generator: np.random.Generator) -> Recording:
        waveform, sample_rate = item
        seconds, direct_db = generator.uniform(*self.seconds), generator.uniform(*self.direct_db)
        time = np.arange(1, max(2, round(seconds * sample_rate))) / sample_rate
        tail = generator.standard_normal(len(time)) * 10 ** (-FALL_DECIBELS / 20 * time / seconds)
        tail *= 10 ** (-direct_db / 20) / np.linalg.norm(tail)
        response = np.concatenate([[1.0], tail]).astype(np.float32)
        function = torchaudio_functional("Room")
        heard = function.fftconvolve(_tensor(waveform), _tensor(response)).numpy()[: len(waveform)]
        power = float(np.mean(np.square(heard, dtype=np.float64)))
        if power == 0:
            return item
        scale = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)) / power)
        return heard * np.float32(scale), sample_rate


def resample(waveform: NDArray[np.float32], rate: int, new_rate: int) -> NDArray[np.float32]:
    """Return the samples at `new_rate`, which `rate` samples become so many."""
    if rate == new_rate:
        return waveform
    return _resampler(rate, new_rate)(_tensor(waveform)).numpy()


@lru_cache(maxsize=64)
def _resampler(rate: int, new_rate: int) -> Callable[[torch.Tensor], torch.Tensor]:
    torchaudio_functional("Speed and Noise")  # refuses if torchaudio is missing
    from torchaudio.transforms import Resample

    return Resample(rate, new_rate)  # has its kernel from the start: half of the time of a short recording


def torchaudio_functional(owner: str) -> Any:
    """Return torchaudio's functions; raise `UserError` if torchaudio is not installed."""
    try:
        import torchaudio.functional
    except ImportError as error:
        raise UserError(
            f"{owner} of kebyt5_xm.data.augmentation needs torchaudio, which cannot be imported ({error}); run: pip "
            "install 'kebyt5-xm[audio]'"
        ) from error
    return torchaudio.functional


def _tensor(samples: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.array(samples, dtype=np.float32))  # a copy: torch warns of read-only memory
