"""Sound through libsndfile: PCM and its relatives in WAV, AIFF, CAF, AU and W64; Vorbis and Opus in Ogg."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.recordings.sound import Sound
from kebyt5_xm.data.media.reference import Refused
from kebyt5_xm.errors import UserError

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "OGG")
BLOCK_VALUES = 1 << 20  # decoded at a time, whatever the number of channels


def open_sound(
    stream: BinaryIO, settings: dict[str, Any] | None = None, promised: int = 0, per_block: int = 0
) -> Sound:
    """Return the sound of `stream`, of which the header alone is read.

    `settings` are libsndfile's for a stream without a header. `promised` is how many samples the file announces,
    and `per_block` how many a block of its codec holds: libsndfile gives whole blocks.
    """
    with _sound_file(stream, settings) as sound:
        if settings is None and sound.format not in FORMATS:
            raise Refused(
                f"found a recording in the format {sound.format}, which is not read; convert it to WAV"
            )
        num_samples, rate = sound.frames, sound.samplerate
    padding = num_samples - promised if num_samples - per_block < promised < num_samples else 0

    def blocks() -> Iterator[NDArray[np.float32]]:
        with _sound_file(stream, settings) as sound:
            size = max(1, BLOCK_VALUES // sound.channels)
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                yield block[:, 0] if sound.channels == 1 else block.mean(axis=1)

    return Sound(num_samples - padding, rate, blocks, padding)


class _Calm:
    """A file as libsndfile asks for it: it is called from C, where an exception would only be printed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = stream.seek(0, io.SEEK_END)
        self.error: Exception | None = None
        stream.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._stream.tell(), io.SEEK_END: self._size}[whence]
        return self._stream.seek(min(max(0, base + offset), self._size))  # a damaged header may say 2^63

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            self.error = error
            return b""

    def write(self, data: bytes) -> int:  # libsndfile has to find one, and never calls it
        raise io.UnsupportedOperation


@contextmanager
def _sound_file(stream: BinaryIO, settings: dict[str, Any] | None) -> Iterator[Any]:
    soundfile, file = _soundfile(), _Calm(stream)
    try:
        with soundfile.SoundFile(file, **(settings or {})) as sound:
            yield sound
    except soundfile.LibsndfileError as error:
        if file.error:
            raise file.error from None
        raise Refused(f"found no readable recording ({error.error_string})") from None
    if file.error:
        raise file.error


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, libsndfile is not
        raise UserError(
            "found a recording but no soundfile; install it: pip install 'kebyt5-xm[audio]'"
        ) from None
    return soundfile
