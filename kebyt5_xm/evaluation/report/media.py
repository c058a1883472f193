"""Images, recordings and arrays of a prompt: opened safely, made small, and put into the page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.opening import open_media
from kebyt5_xm.data.media.reference import Readable, resolve
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report.data_urls import grey, jpeg, png, spectrogram, time_to_the_right, wav
from kebyt5_xm.evaluation.report.language import bilingual, data
from kebyt5_xm.evaluation.report.numbers import number
from kebyt5_xm.model.runs.run import Run

Opener = Callable[[dict[str, Any]], Readable | None]
"""From a medium of a prompt to what may be opened for it (a path, a file's bytes, ...); None for nothing.

It is given the medium as it stands in predictions.jsonl (`modality`, `media`, `reference`), with `source`, `row`,
`path` and `line` of its example. It may raise `MediaError`, whose cause is then shown.
"""

MOST_BYTES = 24_000_000
"""Of all media of a page together, as data URLs. Our own choice: phones open a page of that size."""
IMAGE_SIDE, JPEG_QUALITY = 224, 82
MOST_SECONDS, MOST_RATE = 12.0, 16_000
SPECTROGRAM_COLUMNS = 360


def beside_manifest(run: Run) -> Opener:
    """Return an opener of files within the manifest's folder, as `kebyt5_xm.data.Manifest` resolves them.

    What stands inside another file (a tar shard, a parquet table) has no path of its own and is not found by it.
    """
    sources = (run.config.get("data") or {}).get("sources") or {}

    def find(medium: dict[str, Any]) -> Readable | None:
        settings = (sources.get(medium["source"]) or {}).get("init_args") or {}
        return resolve(
            Path(medium["path"]).parent,
            str(medium["reference"]),
            bool(settings.get("allow_remote")),
            bool(settings.get("allow_outside")),
        )

    return find


@dataclass(frozen=True)
class Shown:
    """What a page shows of a medium: data URLs of what is seen and heard, or the `problem` in their place."""

    reference: str = ""
    image: str | None = None
    alt: str = ""
    size: tuple[int, int] | None = None
    """Width and height at which it is shown, in pixels; None where the style sheet says."""
    classes: str = ""
    audio: str | None = None
    told: str | Markup | None = None
    problem: Markup | None = None


class MediaShelf:
    """Turns media into what a page shows until `MOST_BYTES` are spent; `left_out` counts the others."""

    def __init__(self, find: Opener | None) -> None:
        self.find = find
        self.spent = self.left_out = 0

    def shown(self, medium: dict[str, Any]) -> Shown:
        """Return a medium, or what is known of it and why it cannot be seen."""
        reference = _short(str(medium.get("reference", "")))
        if self.find is None:
            return Shown(reference, problem=bilingual("media not opened"))
        if self.spent >= MOST_BYTES:
            self.left_out += 1
            return Shown(reference, problem=bilingual("left out: the page is full"))
        kind = medium.get("media")
        try:
            readable = self.find(medium)
            if readable is None:
                return Shown(reference, problem=bilingual("not found"))
            if kind not in ("image", "audio", "array"):
                return Shown(reference, problem=bilingual("of an unknown kind"))
            shown = _SHOWN[kind](open_media(readable, kind))
        except MediaError as error:
            return Shown(reference, problem=bilingual("cannot be opened: {cause}", cause=data(error.cause)))
        except (UserError, OSError) as error:
            return Shown(reference, problem=bilingual("cannot be opened: {cause}", cause=data(error)))
        self.spent += len(shown.image or "") + len(shown.audio or "")
        return replace(shown, reference=reference)


def shown_image(image: Any) -> Shown:
    """Return a Pillow image at most `IMAGE_SIDE` pixels wide and high."""
    told = f"{image.width} × {image.height}"
    small = image.copy()
    small.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    # A tiny one is shown larger, with its pixels visible.
    classes = "tiny" if max(small.size) < 64 else ""
    return Shown(image=jpeg(small, JPEG_QUALITY), alt=told, size=small.size, classes=classes, told=told)


def shown_audio(decoded: Any) -> Shown:
    """Return the first `MOST_SECONDS` of a waveform [samples] and its rate, at `MOST_RATE` Hz or less."""
    waveform, rate = decoded
    seconds = len(waveform) / rate
    played = waveform[: int(MOST_SECONDS * rate)]
    picture = png(grey(spectrogram(played, rate), SPECTROGRAM_COLUMNS))
    every = max(1, -(-rate // MOST_RATE))
    if every > 1:  # the mean of neighbours is filter enough for listening
        played = played[: len(played) // every * every].reshape(-1, every).mean(1)
    if seconds <= MOST_SECONDS:
        told = bilingual("{seconds} s at {rate} Hz", seconds=f"{seconds:.2f}", rate=f"{rate:,}")
    else:
        told = bilingual(
            "the first {shown} of {seconds} s, {rate} Hz",
            shown=f"{MOST_SECONDS:g}",
            seconds=f"{seconds:.2f}",
            rate=f"{rate:,}",
        )
    url = wav(played, rate // every)
    return Shown(audio=url, image=picture, alt="spectrogram", classes="spectrogram", told=told)


def shown_array(values: Any) -> Shown:
    """Return an array with its first axis, time, to the right, at most 512 of its features."""
    picture = time_to_the_right(values) if values.size else np.zeros((1, 1), np.float32)
    shape = " × ".join(map(str, values.shape))
    told = f"{shape}, {number(float(picture.min()))} – {number(float(picture.max()))}"
    pixels = grey(picture[:512], SPECTROGRAM_COLUMNS)
    return Shown(image=png(pixels), alt=shape, classes="spectrogram", told=told)


_SHOWN: dict[str, Callable[[Any], Shown]] = {
    "image": shown_image,
    "audio": shown_audio,
    "array": shown_array,
}


def _short(reference: str, most: int = 80) -> str:
    return reference if len(reference) <= most else f"…{reference[-most + 1 :]}"
