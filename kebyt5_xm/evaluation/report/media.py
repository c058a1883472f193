"""Images, recordings and arrays of a prompt: opened safely, made small, and put into the page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.opening import open_media
from kebyt5_xm.data.media.reference import Readable, resolve
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report.markup import data, element, say
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


class MediaShelf:
    """Turns media into elements of the page until `MOST_BYTES` are spent; `left_out` counts the others."""

    def __init__(self, find: Opener | None) -> None:
        self.find = find
        self.spent = self.left_out = 0

    def shown(self, medium: dict[str, Any]) -> Markup:
        """Return the figure of a medium, or what is known of it and why it cannot be seen."""
        reference = data(_short(str(medium.get("reference", ""))))
        if self.find is None:
            return _figure(say("매체를 열지 않음", "media not opened"), reference)
        if self.spent >= MOST_BYTES:
            self.left_out += 1
            return _figure(say("자리가 다 참", "left out: the page is full"), reference)
        kind = medium.get("media")
        try:
            readable = self.find(medium)
            if readable is None:
                return _figure(say("찾을 수 없음", "not found"), reference)
            if kind not in ("image", "audio", "array"):
                return _figure(say("알 수 없는 매체", "of an unknown kind"), reference)
            elements = _ELEMENTS[kind](open_media(readable, kind))
        except MediaError as error:
            return _figure(say("열 수 없음: {}", "cannot be opened: {}", data(error.cause)), reference)
        except (UserError, OSError) as error:
            return _figure(say("열 수 없음: {}", "cannot be opened: {}", data(error)), reference)
        self.spent += sum(map(len, elements))
        return _figure(*elements, reference)


def _figure(*parts: Markup) -> Markup:
    *elements, reference = parts
    return element("figure", *elements, element("figcaption", reference), class_="medium")


def _image(image: Any) -> list[Markup]:
    from kebyt5_xm.evaluation.report.data_urls import jpeg

    width, height = image.size
    small = image.copy()
    small.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    # A tiny one is shown larger, with its pixels visible.
    classes = "tiny" if max(small.size) < 64 else None
    picture = element(
        "img",
        src=jpeg(small, JPEG_QUALITY),
        alt=f"{width} × {height}",
        width=small.width,
        height=small.height,
        class_=classes,
    )
    return [picture, element("small", f"{width} × {height}")]


def _audio(decoded: Any) -> list[Markup]:
    from kebyt5_xm.evaluation.report.data_urls import grey, png, spectrogram, wav

    waveform, rate = decoded
    seconds = len(waveform) / rate
    played = waveform[: int(MOST_SECONDS * rate)]
    picture = png(grey(spectrogram(played, rate), SPECTROGRAM_COLUMNS))
    every = max(1, -(-rate // MOST_RATE))
    if every > 1:  # the mean of neighbours is filter enough for listening
        played = played[: len(played) // every * every].reshape(-1, every).mean(1)
    told = say(
        "{}초, {} Hz" if seconds <= MOST_SECONDS else f"{{}}초 중 처음 {MOST_SECONDS:g}초, {{}} Hz",
        "{} s at {} Hz" if seconds <= MOST_SECONDS else f"the first {MOST_SECONDS:g} of {{}} s, {{}} Hz",
        f"{seconds:.2f}",
        f"{rate:,}",
    )
    return [
        element("audio", controls=True, preload="none", src=wav(played, rate // every)),
        element("img", src=picture, alt="spectrogram", class_="spectrogram"),
        element("small", told),
    ]


def _array(values: Any) -> list[Markup]:
    import numpy as np

    from kebyt5_xm.evaluation.report.data_urls import grey, png

    flat = values.reshape(len(values), -1) if values.ndim > 1 else values[:, None]
    picture = np.ascontiguousarray(flat.T[::-1]) if values.size else np.zeros((1, 1), np.float32)
    shape = " × ".join(map(str, values.shape))
    told = f"{shape}, {number(float(picture.min()))} – {number(float(picture.max()))}"
    pixels = grey(picture[:512], SPECTROGRAM_COLUMNS)
    return [element("img", src=png(pixels), alt=shape, class_="spectrogram"), element("small", told)]


_ELEMENTS: dict[str, Callable[[Any], list[Markup]]] = {"image": _image, "audio": _audio, "array": _array}


def _short(reference: str, most: int = 80) -> str:
    return reference if len(reference) <= most else f"…{reference[-most + 1 :]}"
