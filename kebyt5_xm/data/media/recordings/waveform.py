"""Recordings given as numbers: waveforms in memory, and `{"array", "sampling_rate"}` in a row.

`datasets` writes such rows when decoded recordings are stored without its Audio type. They are encoded as WAV, so
that the same limits and the same reader apply as to files.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.reference import MediaRefusal, wrap_errors

# Hz, telephone to studio. A damaged header may give 1 Hz, and resampling that would fill the memory.
MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 8
"""The shorter axis of a matrix is the channels if it is at most this long (7.1 sound); more rows are probably a batch
of recordings. Our own choice."""
MAX_AMPLITUDE = 32
"""Rounding and filters may exceed full scale, 1, a little. 30 dB more means unscaled 16-bit integers."""
ARRAY_KEY, RATE_KEY = "array", "sampling_rate"
MAX_RATE_IN_ROW = 1 << 26
"""Hz that fit into a WAV header with any number of channels. The reader refuses rates above `MAX_RATE`."""
MAX_BYTES = (1 << 32) - 100
"""The largest data size that fits into a WAV header."""


def as_mono(samples: Any, sample_rate: Any) -> tuple[NDArray[np.float32], int]:
    """Return samples in memory (array or torch tensor) as (mono float32 [samples], sample rate in Hz).

    They are floats from -1 to 1 of shape [time], [time, channels] or [channels, time]: the shorter axis is the
    channels, at most `MAX_CHANNELS`, and the time is more than four times as long. Every other shape raises
    `MediaError`, and so do integers, because their range is unknown.
    """
    with wrap_errors("the recording"):
        if hasattr(samples, "detach"):
            samples = samples.detach().cpu()
            samples = samples.float().numpy() if samples.is_floating_point() else samples.numpy()
        samples = np.asarray(samples)
        waveform = _mix_channels(samples).astype(np.float32)
        rate = _parse_sample_rate(sample_rate)
        check_waveform(waveform, rate)
        if (highest := np.abs(waveform).max()) > MAX_AMPLITUDE:
            raise MediaRefusal(
                f"found samples up to {highest:g}, expected floats from -1 to 1; divide 16-bit samples by 32768"
            )
        return waveform, rate


def _parse_sample_rate(sample_rate: Any) -> int:
    try:
        rate = int(sample_rate)
        if rate == sample_rate:
            return rate
    except (TypeError, ValueError, OverflowError):
        pass
    raise MediaRefusal(f"found a sample rate of {str(sample_rate)[:60]!r}, expected a whole number of Hz")


def _mix_channels(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the mean over the channels, [time]; raise `MediaRefusal` for a wrong type or shape."""
    if samples.dtype.kind != "f":
        remedy = f"; divide by {1 << (8 * samples.dtype.itemsize - 1)}" if samples.dtype.kind == "i" else ""
        raise MediaRefusal(
            f"found {samples.dtype} of shape {list(samples.shape)}, expected floats from -1 to 1{remedy}"
        )
    if samples.ndim == 1:
        return samples
    if samples.ndim == 2:
        short, long = sorted(samples.shape)
        if short in (0, 1):
            return samples.reshape(-1)
        if short <= MAX_CHANNELS and long > 4 * short:
            return samples.mean(axis=int(samples.shape[1] == short), dtype=np.float64)
        if short > MAX_CHANNELS:
            raise MediaRefusal(
                f"found samples of shape {list(samples.shape)}, expected at most {MAX_CHANNELS} channels; give each "
                "recording of a batch as its own (waveform, sample rate), in a list of lists"
            )
    raise MediaRefusal(
        f"found samples of shape {list(samples.shape)}, expected [time], [channels, time] or [time, channels]; "
        "give one channel"
    )


def check_rate(sample_rate: int) -> None:
    """Raise `MediaRefusal` unless the sample rate is plausible for a recording."""
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise MediaRefusal(f"found a sample rate of {sample_rate} Hz, expected {MIN_RATE} to {MAX_RATE}")


def check_waveform(waveform: NDArray[np.float32], sample_rate: int) -> None:
    """Raise `MediaRefusal` unless the samples [time] and the rate are valid."""
    check_rate(sample_rate)
    if not len(waveform):
        raise MediaRefusal("found no samples")
    if not np.isfinite(waveform).all():
        raise MediaRefusal("found samples that are NaN or infinite")


def is_waveform(value: Mapping[str, Any]) -> bool:
    """Return whether an object of a row is a recording given as numbers."""
    return value.get(ARRAY_KEY) is not None and RATE_KEY in value


def encode_wav(value: Mapping[str, Any]) -> bytes:
    """Return a WAV file (float32) of samples [n], [channels, n] or [n, channels] between -1 and 1.

    Raises `ValueError`, saying what was found, for anything else.
    """
    rate = value[RATE_KEY]
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int | float)
        or not 0 < rate < MAX_RATE_IN_ROW  # before `int`, which takes no infinity
        or rate != int(rate)
    ):
        raise ValueError(f"the {RATE_KEY} {rate!r}, expected a whole number of Hz")
    try:
        samples = np.asarray(value[ARRAY_KEY], dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"an {ARRAY_KEY} that has non-numbers or unequal lengths") from None
    if samples.ndim == 2 and min(samples.shape) <= MAX_CHANNELS < max(samples.shape):
        samples = samples.T if samples.shape[0] < samples.shape[1] else samples
    elif samples.ndim != 1:
        raise ValueError(
            f"an {ARRAY_KEY} of shape {samples.shape}, expected [samples] or [channels, samples]"
        )
    if not samples.size or 4 * samples.size > MAX_BYTES:
        raise ValueError(f"{samples.size} samples, expected at least one and fewer than 2^30")
    if not np.isfinite(samples).all():
        raise ValueError("samples that are NaN or infinite")
    if np.abs(samples).max() > MAX_AMPLITUDE:
        raise ValueError(f"samples up to {np.abs(samples).max():g}, expected samples between -1 and 1")
    from scipy.io import wavfile  # the import takes 0.2 s, and few manifests need it

    file = io.BytesIO()
    wavfile.write(file, int(rate), samples.astype("<f4"))
    return file.getvalue()
