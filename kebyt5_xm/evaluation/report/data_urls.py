"""Pictures and sounds as data URLs, for pages that need no other file."""

import base64
import io
import wave

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Spectrograms have a 32 ms window every 8 ms; 80 dB below the loudest value is black.
WINDOW_SECONDS, HOP_SECONDS, RANGE_DB = 0.032, 0.008, 80.0
MAX_COLUMNS = 2000
FRAMES_AT_ONCE = 4096


def png(pixels: NDArray[np.uint8]) -> str:
    """Return the data URL of uint8 pixels [rows, columns] or [rows, columns, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return _url("image/png", buffer)


def jpeg(image: Image.Image, quality: int) -> str:
    """Return the data URL of an RGB image, without the metadata of its file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return _url("image/jpeg", buffer)


def wav(waveform: NDArray[np.float32], rate: int) -> str:
    """Return the data URL of a mono waveform as 16-bit samples, scaled to full range."""
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-9)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(waveform / peak * 32767).astype("<i2").tobytes())
    return _url("audio/wav", buffer)


def spectrogram(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return the decibels [frequency, time] of a waveform, high frequencies first."""
    window, hop = max(16, round(rate * WINDOW_SECONDS)), max(4, round(rate * HOP_SECONDS))
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = np.hanning(window + 1)[:-1].astype(np.float32)  # periodic, as spectra need
    magnitude = np.empty((window // 2 + 1, len(frames)), np.float32)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        block = frames[start : start + FRAMES_AT_ONCE] * hann
        magnitude[:, start : start + FRAMES_AT_ONCE] = np.abs(np.fft.rfft(block)).T
    decibels = 20 * np.log10(np.maximum(magnitude, 1e-10))
    return np.maximum(decibels, decibels.max() - RANGE_DB)[::-1]


def transpose_time(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `values` [time, ...] as [features, time], the layout of a spectrogram."""
    flat = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
    return np.ascontiguousarray(flat.T[::-1])


def to_grey(values: NDArray[np.float32], max_columns: int = MAX_COLUMNS) -> NDArray[np.uint8]:
    """Return `values` [rows, columns] as grey pixels, the largest white; surplus columns are summed."""
    step = -(-values.shape[1] // max_columns)
    if step > 1:
        values = np.add.reduceat(values, np.arange(0, values.shape[1], step), axis=1)
    low, high = float(values.min()), float(values.max())
    return np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)


def _url(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
