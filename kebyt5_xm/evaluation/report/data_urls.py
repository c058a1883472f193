"""Pictures and sounds as data URLs, for pages that need no other file."""

import base64
import io
import wave

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Of the spectrogram of a waveform: 32 ms windows every 8 ms, and 80 dB below the loudest is black.
WINDOW_SECONDS, HOP_SECONDS, RANGE_DB = 0.032, 0.008, 80.0
MOST_COLUMNS = 2000
FRAMES_AT_ONCE = 4096


def png(pixels: NDArray[np.uint8]) -> str:
    """Return pixels [rows, columns] or [rows, columns, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return _url("image/png", buffer)


def jpeg(image: Image.Image, quality: int) -> str:
    """Return an RGB image, its pixels alone: whatever else its file held is gone."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return _url("image/jpeg", buffer)


def wav(waveform: NDArray[np.float32], rate: int) -> str:
    """Return a mono waveform as 16-bit samples, the loudest at full scale."""
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-9)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(waveform / peak * 32767).astype("<i2").tobytes())
    return _url("audio/wav", buffer)


def spectrogram(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return decibels [frequency, time], high frequencies first."""
    window, hop = max(16, round(rate * WINDOW_SECONDS)), max(4, round(rate * HOP_SECONDS))
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = np.hanning(window + 1)[:-1].astype(np.float32)  # periodic, as for spectra it should be
    magnitude = np.empty((window // 2 + 1, len(frames)), np.float32)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        block = frames[start : start + FRAMES_AT_ONCE] * hann
        magnitude[:, start : start + FRAMES_AT_ONCE] = np.abs(np.fft.rfft(block)).T
    decibels = 20 * np.log10(np.maximum(magnitude, 1e-10))
    return np.maximum(decibels, decibels.max() - RANGE_DB)[::-1]


def time_to_the_right(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `values` [time, ...] as a picture [features, time], as a spectrogram has it."""
    flat = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
    return np.ascontiguousarray(flat.T[::-1])


def grey(values: NDArray[np.float32], most_columns: int = MOST_COLUMNS) -> NDArray[np.uint8]:
    """Return `values` [rows, columns] as grey, the largest white; neighbours are summed where there are too many."""
    step = -(-values.shape[1] // most_columns)
    if step > 1:
        values = np.add.reduceat(values, np.arange(0, values.shape[1], step), axis=1)
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def _url(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
