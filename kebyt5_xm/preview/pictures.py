"""Pictures and sounds for the page, as data URLs. What is shown says how it was made visible."""

import base64
import io
import wave
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.errors import UserError

# Of the spectrogram of a waveform: 32 ms windows every 8 ms, and 80 dB below the loudest is black.
WINDOW_SECONDS, HOP_SECONDS, RANGE_DB = 0.032, 0.008, 80.0
MOST_COLUMNS = 2000


@dataclass(frozen=True)
class Shown:
    """One element of the page: `kind` is img or audio, `url` its data, `caption` says what it is."""

    kind: str
    url: str
    caption: str


def shown(media: str, prepared: Tensor, decoded: Any, sample_rate: int | None) -> list[Shown]:
    """Return what makes a prepared medium visible and audible; `sample_rate` is the preprocessor's, if it has one."""
    told = f"prepared: {' x '.join(map(str, prepared.shape))}"
    if media == "image":
        return [_image(picture, told) for picture in _colour_pictures(prepared)] or [_tensor(prepared, told)]
    if media == "audio":
        waveform, rate = decoded
        if prepared.ndim == 1 and sample_rate is not None:
            waveform, rate = prepared.numpy(), sample_rate
            told += f" samples at {rate} Hz, played at full scale"
            return [_sound(waveform, rate, told), _picture(_spectrogram(waveform, rate), "its spectrogram")]
        player = _sound(
            waveform, rate, f"recording: {len(waveform)} samples at {rate} Hz, played at full scale"
        )
        return [player, _tensor(prepared, told)]
    return [_tensor(prepared, told)]


def _colour_pictures(prepared: Tensor) -> list[Tensor]:
    """Return the pictures [3, H, W] in a prepared image, or none if it is of another shape."""
    if prepared.ndim == 3 and prepared.shape[0] == 3:
        return [prepared]
    return list(prepared) if prepared.ndim == 4 and prepared.shape[1] == 3 else []


def _image(picture: Tensor, told: str) -> Shown:
    values = picture.float().numpy()
    low, high = float(values.min()), float(values.max())
    inside = low >= 0 and high <= 1
    scaled = values if inside else (values - low) / max(high - low, 1e-12)
    caption = f"{told}, values {low:.2f} to {high:.2f}" + ("" if inside else ", stretched to be seen")
    return Shown("img", _png(np.round(scaled.transpose(1, 2, 0) * 255).astype(np.uint8)), caption)


def _tensor(prepared: Tensor, told: str) -> Shown:
    values = prepared.float().numpy()
    caption = f"{told}, values {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}"
    # Time, the first axis, runs to the right, as in a spectrogram.
    flat = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
    return _picture(np.ascontiguousarray(flat.T[::-1]), caption)


def _spectrogram(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return decibels [frequency, time], high frequencies first."""
    window, hop = max(16, round(rate * WINDOW_SECONDS)), max(4, round(rate * HOP_SECONDS))
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    spectrum = torch.stft(
        torch.from_numpy(padded),
        window,
        hop,
        window=torch.hann_window(window),
        center=False,
        return_complex=True,
    )
    decibels = 20 * torch.log10(spectrum.abs().clamp_min(1e-10))
    return decibels.clamp_min(float(decibels.max()) - RANGE_DB).flip(0).numpy()


def _picture(values: NDArray[np.float32], caption: str) -> Shown:
    """Return `values` [rows, columns] as grey, the largest white; neighbours are summed where there are too many."""
    step = -(-values.shape[1] // MOST_COLUMNS)
    if step > 1:
        values = np.add.reduceat(values, np.arange(0, values.shape[1], step), axis=1)
    low, high = float(values.min()), float(values.max())
    grey = (values - low) / max(high - low, 1e-12)
    return Shown("img", _png(np.round(grey * 255).astype(np.uint8)), caption)


def _png(pixels: NDArray[np.uint8]) -> str:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("found no Pillow, expected it for the page; pip install 'kebyt5-xm[image]'") from None
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return _url("image/png", buffer)


def _sound(waveform: NDArray[np.float32], rate: int, caption: str) -> Shown:
    peak = max(float(np.abs(waveform).max(initial=0.0)), 1e-9)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.round(waveform / peak * 32767).astype("<i2").tobytes())
    return Shown("audio", _url("audio/wav", buffer), caption)


def _url(kind: str, buffer: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
