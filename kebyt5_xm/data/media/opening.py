"""Opens the media that a row refers to, once and safely, whatever its encoder's author knew about bad files.

Every failure is a `MediaError` with the file's name and a cause in one line. The policies stand in `image`,
`audio` and `array`; what may be opened at all, in `reference`. Nothing here needs Pillow or soundfile before
a file of their kind is opened.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from kebyt5_xm.data.media.array import open_array, read_array_header
from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.images.image import as_rgb, open_image, read_image_header
from kebyt5_xm.data.media.recordings.audio import open_audio, read_audio_header
from kebyt5_xm.data.media.recordings.waveform import as_mono
from kebyt5_xm.data.media.reference import Limits, Readable, RemoteUrl, resolve

if TYPE_CHECKING:
    from kebyt5_xm.encoder import ArrayHeader, AudioHeader, ImageHeader

__all__ = [
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
    """Return an RGB image of Pillow, (mono float32 [samples], sample rate in Hz), or a float32 array.

    Raises `MediaError` if the file cannot be had, and `UserError` if the library for it is not installed.
    """
    return _OPENERS[media](source, limits)


def read_header(
    source: Readable, media: Media, limits: Limits | None = None
) -> "ImageHeader | AudioHeader | ArrayHeader":
    """Return what the file's header says, without decoding: exactly the size that `open_media` would give.

    Raises as `open_media`, as far as the header shows it.
    """
    return _HEADER_READERS[media](source, limits)
