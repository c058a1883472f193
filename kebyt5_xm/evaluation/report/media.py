"""Images, recordings and arrays of a prompt: opened safely, reduced, and embedded in the page."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.opening import open_media
from kebyt5_xm.data.media.reference import Readable, resolve
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report.data_urls import jpeg, png, spectrogram, to_grey, transpose_time, wav
from kebyt5_xm.evaluation.report.wording import bilingual, data, number
from kebyt5_xm.model.runs.run import Run

Opener = Callable[[dict[str, Any]], Readable | None]
"""Returns a path, a file's bytes or the like for a medium of a prompt; None if it cannot be found.

The argument is the medium as in predictions.jsonl (`modality`, `media`, `reference`; of an excerpt also `offset` and
`duration` in seconds), with `source`, `row`, `path` and `line` of its example. May raise `MediaError`, whose cause
is then shown.
"""

MAX_BYTES = 24_000_000
"""Limit for all media of a page, as data URLs. Our own choice: phones open a page of that size."""
IMAGE_SIDE, JPEG_QUALITY = 224, 82
MAX_SECONDS, MAX_RATE = 12.0, 16_000
SPECTROGRAM_COLUMNS = 360


def manifest_opener(run: Run) -> Opener:
    """Return an opener that finds files in the manifest's folder, as `kebyt5_xm.data.Manifest` resolves them.

    It does not find media inside other files (tar shards, parquet tables), since they have no path.
    """
    sources = (run.config.get("data") or {}).get("sources") or {}

    def find(medium: dict[str, Any]) -> Readable | None:
        settings = (sources.get(medium["source"]) or {}).get("init_args") or {}
        found = resolve(
            Path(medium["path"]).parent,
            str(medium["reference"]),
            bool(settings.get("allow_remote")),
            bool(settings.get("allow_outside")),
        )
        return Excerpt(found, medium["offset"], medium.get("duration")) if "offset" in medium else found

    return find


@dataclass(frozen=True)
class ShownMedium:
    """What a page shows of a medium: data URLs of its image and sound, or the `problem` instead."""

    reference: str = ""
    image: str | None = None
    alt: str = ""
    size: tuple[int, int] | None = None
    """Displayed width and height in pixels; None if the style sheet decides."""
    classes: str = ""
    audio: str | None = None
    caption: str | Markup | None = None
    problem: Markup | None = None


class MediaRenderer:
    """Renders media until `MAX_BYTES` are used; `left_out` counts the others."""

    def __init__(self, find: Opener | None) -> None:
        self.find = find
        self.num_bytes = self.left_out = 0

    def render(self, medium: dict[str, Any]) -> ShownMedium:
        """Return a medium for the page, or why it cannot be shown."""
        reference = _short(str(medium.get("reference", ""))) + _times(medium)
        if self.find is None:
            return ShownMedium(reference, problem=bilingual("media not opened"))
        if self.num_bytes >= MAX_BYTES:
            self.left_out += 1
            return ShownMedium(reference, problem=bilingual("left out: the page is full"))
        kind = medium.get("media")
        try:
            readable = self.find(medium)
            if readable is None:
                return ShownMedium(reference, problem=bilingual("not found"))
            if kind not in ("image", "audio", "array"):
                return ShownMedium(reference, problem=bilingual("of an unknown kind"))
            shown = _SHOW[kind](open_media(readable, kind))
        except MediaError as error:
            return ShownMedium(
                reference, problem=bilingual("cannot be opened: {cause}", cause=data(error.cause))
            )
        except (UserError, OSError) as error:
            return ShownMedium(reference, problem=bilingual("cannot be opened: {cause}", cause=data(error)))
        self.num_bytes += len(shown.image or "") + len(shown.audio or "")
        return replace(shown, reference=reference)


def show_image(image: Any) -> ShownMedium:
    """Return a Pillow image, reduced to at most `IMAGE_SIDE` pixels wide and high."""
    caption = f"{image.width} × {image.height}"
    small = image.copy()
    small.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    # A tiny image is enlarged, with visible pixels.
    classes = "tiny" if max(small.size) < 64 else ""
    return ShownMedium(
        image=jpeg(small, JPEG_QUALITY), alt=caption, size=small.size, classes=classes, caption=caption
    )


def show_audio(decoded: Any) -> ShownMedium:
    """Return the first `MAX_SECONDS` of a waveform [samples] and its rate, at `MAX_RATE` Hz or less."""
    waveform, rate = decoded
    seconds = len(waveform) / rate
    played = waveform[: int(MAX_SECONDS * rate)]
    picture = png(to_grey(spectrogram(played, rate), SPECTROGRAM_COLUMNS))
    every = max(1, -(-rate // MAX_RATE))
    if every > 1:  # averaging neighbours is a sufficient filter for listening
        played = played[: len(played) // every * every].reshape(-1, every).mean(1)
    if seconds <= MAX_SECONDS:
        caption = bilingual("{seconds} s at {rate} Hz", seconds=f"{seconds:.2f}", rate=f"{rate:,}")
    else:
        caption = bilingual(
            "the first {shown} of {seconds} s, {rate} Hz",
            shown=f"{MAX_SECONDS:g}",
            seconds=f"{seconds:.2f}",
            rate=f"{rate:,}",
        )
    url = wav(played, rate // every)
    return ShownMedium(audio=url, image=picture, alt="spectrogram", classes="spectrogram", caption=caption)


def show_array(values: Any) -> ShownMedium:
    """Return an array with time, its first axis, to the right; at most 512 of its features."""
    picture = transpose_time(values) if values.size else np.zeros((1, 1), np.float32)
    shape = " × ".join(map(str, values.shape))
    caption = f"{shape}, {number(float(picture.min()))} – {number(float(picture.max()))}"
    pixels = to_grey(picture[:512], SPECTROGRAM_COLUMNS)
    return ShownMedium(image=png(pixels), alt=shape, classes="spectrogram", caption=caption)


_SHOW: dict[str, Callable[[Any], ShownMedium]] = {
    "image": show_image,
    "audio": show_audio,
    "array": show_array,
}


def _short(reference: str, length: int = 80) -> str:
    return reference if len(reference) <= length else f"…{reference[-length + 1 :]}"


def _times(medium: dict[str, Any]) -> str:
    """Return the times of an excerpt, to stand behind its file; nothing for a whole medium."""
    if "offset" not in medium:
        return ""
    start, seconds = medium["offset"], medium.get("duration")
    return f" @ {start:.10g} s" + ("" if seconds is None else f" + {seconds:.10g} s")
