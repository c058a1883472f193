"""Pictures and sounds of prepared media; captions say how they were made visible."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.encoder import Media
from kebyt5_xm.evaluation.report.data_urls import png, spectrogram, to_grey, transpose_time, wav


@dataclass(frozen=True)
class Shown:
    """One element of the page: `kind` is img or audio, `url` is a data URL."""

    kind: str
    url: str
    caption: str


def shown(media: Media, waveform_rate: int | None, prepared: Tensor, decoded: Any) -> list[Shown]:
    """Return pictures and players of a prepared medium. `waveform_rate` is the preprocessor's."""
    caption = f"prepared: {' x '.join(map(str, prepared.shape))}"
    if media == "image":
        return [_image(picture, caption) for picture in _colour_pictures(prepared)] or [
            _tensor(prepared, caption)
        ]
    if media == "audio":
        waveform, rate = decoded
        if waveform_rate is not None:
            waveform, rate = prepared.numpy(), waveform_rate
            caption += f" samples at {rate} Hz, played at full scale"
            return [_sound(waveform, rate, caption), _picture(spectrogram(waveform, rate), "its spectrogram")]
        player = _sound(
            waveform, rate, f"recording: {len(waveform)} samples at {rate} Hz, played at full scale"
        )
        return [player, _tensor(prepared, caption)]
    return [_tensor(prepared, caption)]


def without_augmentation(media: Media, waveform_rate: int | None, prepared: Tensor) -> list[Shown]:
    """Return a picture of the prepared medium as it would be without augmentation; of a recording a spectrogram."""
    note = "without augmentation"
    if media == "image":
        pictures = [_image(picture, note) for picture in _colour_pictures(prepared)]
        return pictures or [_tensor(prepared, note)]
    if media == "audio" and waveform_rate is not None:
        return [_picture(spectrogram(prepared.numpy(), waveform_rate), f"spectrogram {note}")]
    return [_tensor(prepared, note)]


def _colour_pictures(prepared: Tensor) -> list[Tensor]:
    """Return the pictures [3, H, W] in a prepared image; an empty list for another shape."""
    if prepared.ndim == 3 and prepared.shape[0] == 3:
        return [prepared]
    return list(prepared) if prepared.ndim == 4 and prepared.shape[1] == 3 else []


def _image(picture: Tensor, caption: str) -> Shown:
    values = picture.float().numpy()
    low, high = float(values.min()), float(values.max())
    inside = low >= 0 and high <= 1
    scaled = values if inside else (values - low) / max(high - low, 1e-12)
    caption = f"{caption}, values {low:.2f} to {high:.2f}" + ("" if inside else ", stretched to be seen")
    return Shown("img", png(np.round(scaled.transpose(1, 2, 0) * 255).astype(np.uint8)), caption)


def _tensor(prepared: Tensor, caption: str) -> Shown:
    values = prepared.float().numpy()
    caption = f"{caption}, values {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}"
    return _picture(transpose_time(values), caption)


def _picture(values: NDArray[np.float32], caption: str) -> Shown:
    return Shown("img", png(to_grey(values)), caption)


def _sound(waveform: NDArray[np.float32], rate: int, caption: str) -> Shown:
    return Shown("audio", wav(waveform, rate), caption)
