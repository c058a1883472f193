"""A recording that stands in a row as numbers, {"array", "sampling_rate"}, as the bytes of a WAV file.

`datasets` makes such rows where recordings were decoded and stored without its type for them. As a file they meet the
same limits and the same reader as any other.
"""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

ARRAY, RATE = "array", "sampling_rate"
IEEE_FLOAT = 3
"""The code of float samples in WAV."""
MOST_CHANNELS = 8
"""The shorter axis of a matrix holds the channels if it has no more than these; our own choice, 7.1 sound."""
MOST_BYTES = (1 << 32) - 100
"""What the header of a WAV can say."""


def is_waveform(value: Mapping[str, Any]) -> bool:
    """Return whether an object is a recording as numbers."""
    return value.get(ARRAY) is not None and RATE in value


def wav_of(value: Mapping[str, Any]) -> bytes:
    """Return the WAV file, 32 bits a sample, of samples [n], [channels, n] or [n, channels] between -1 and 1.

    Raises `ValueError` with what was found for anything else.
    """
    rate = value[RATE]
    if (
        isinstance(rate, bool)
        or not isinstance(rate, int | float)
        or rate != int(rate)
        or not 0 < rate < 1 << 31
    ):
        raise ValueError(f"the {RATE} {rate!r}, expected a whole number of Hz")
    try:
        samples = np.asarray(value[ARRAY], dtype=np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"an {ARRAY} of something else than numbers, or of unequal lengths") from None
    if samples.ndim == 2 and min(samples.shape) <= MOST_CHANNELS < max(samples.shape):
        samples = samples.T if samples.shape[0] < samples.shape[1] else samples
    elif samples.ndim != 1:
        raise ValueError(f"an {ARRAY} of shape {samples.shape}, expected [samples] or [channels, samples]")
    if not samples.size or 4 * samples.size > MOST_BYTES:
        raise ValueError(f"{samples.size} samples, expected at least one and fewer than 2^30")
    if not np.isfinite(samples).all():
        raise ValueError("samples that are NaN or infinite")
    # Louder than full scale by rounding and filters, not by 30 dB as whole numbers of 16 bits would be.
    if np.abs(samples).max() > 32:
        raise ValueError(f"samples up to {np.abs(samples).max():g}, expected them between -1 and 1")
    data = samples.astype("<f4").tobytes()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    form = struct.pack("<HHIIHH", IEEE_FLOAT, channels, int(rate), 4 * channels * int(rate), 4 * channels, 32)
    chunks = b"".join(
        name + struct.pack("<I", len(content)) + content
        for name, content in (
            (b"fmt ", form + b"\0\0"),
            (b"fact", struct.pack("<I", len(samples))),
            (b"data", data),
        )
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
