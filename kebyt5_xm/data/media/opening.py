"""Opens the media of rows, once and safely, so that encoders never see bad files.

Every failure is a `MediaError` with the file's name and a one-line cause. `image`, `audio` and `array` document their
rules; `reference` decides which files may be opened. Pillow and soundfile are imported only when a file needs them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from kebyt5_xm.data.media.array import open_array, read_array_header
from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.images.image import as_rgb, open_image, read_image_header
from kebyt5_xm.data.media.recordings.audio import open_audio, read_audio_header
from kebyt5_xm.data.media.recordings.waveform import as_mono
from kebyt5_xm.data.media.reference import Limits, Readable, RemoteUrl, display_name, resolve

if TYPE_CHECKING:
    from kebyt5_xm.encoder import ArrayHeader, AudioHeader, ImageHeader

__all__ = [
    "Excerpt",
    "Limits",
    "Media",
    "MediaError",
    "Readable",
    "RemoteUrl",
    "as_mono",
    "as_rgb",
    "open_array",
    "open_audio",
    "open_image",
    "open_media",
    "read_header",
    "resolve",
]

Media = Literal["image", "audio", "array"]

_OPENERS: dict[Media, Callable[[Readable, Limits | None], Any]] = {
    "image": open_image,
    "audio": open_audio,
    "array": open_array,
}
_HEADER_READERS: dict[Media, Callable[[Readable, Limits | None], Any]] = {
    "image": read_image_header,
    "audio": read_audio_header,
    "array": read_array_header,
}


def open_media(source: Readable, media: Media, limits: Limits | None = None) -> Any:
    """Return a Pillow RGB image, (mono float32 [samples], sample rate in Hz), or a float32 array.

    Raises `MediaError` if the file cannot be read, and `UserError` if its library is not installed.
    """
    _check_excerpt(source, media)
    return _OPENERS[media](source, limits)


def read_header(
    source: Readable, media: Media, limits: Limits | None = None
) -> "ImageHeader | AudioHeader | ArrayHeader":
    """Return the exact size that `open_media` would give, from the file's header, without decoding.

    Raises the errors of `open_media` that the header reveals.
    """
    _check_excerpt(source, media)
    return _HEADER_READERS[media](source, limits)


def _check_excerpt(source: Readable, media: Media) -> None:
    if isinstance(source, Excerpt) and media != "audio":
        raise MediaError(
            display_name(source),
            f"found a start and a length for media of the kind {media}, expected recordings",
        )
