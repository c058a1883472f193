"""Decodes audio with libsndfile and with FFmpeg (through PyAV); defines `Sound`, which every audio reader returns.

libsndfile reads PCM and similar codecs in WAV, AIFF, CAF, AU and W64, and Vorbis and Opus in Ogg. FFmpeg decodes with
one thread, prints nothing, and any error of it means damage.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.reference import MediaRefusal
from kebyt5_xm.errors import UserError

FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "OGG")
BLOCK_VALUES = 1 << 16  # values decoded at a time, all channels together
SEEKABLE = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("IMA_ADPCM", "MS_ADPCM", "VORBIS"),
)
"""libsndfile's subtypes that decode to the same bits from the middle as from the start, damaged files included. Opus
does not; ALAC in CAF does unless it is damaged."""
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""Options of FFmpeg's decoders: a wrong checksum is an error."""
DTYPES = {
    "flt": np.float32,
    "dbl": np.float64,
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
}
"""FFmpeg's sample formats, without the "p" of planar ones."""


@dataclass(frozen=True)
class Sound:
    """One continuous sound. A recording has one, or several if files were joined.

    `blocks(stream, start)` decodes the file `stream` from sample `start` on: it yields blocks of mono float32
    [samples], the same to the bit for every `start`, and raises `MediaRefusal` for damage. From 0 on the blocks must
    add up to `num_samples + padding` samples; the encoder added the padding to fill its last frame. `sample_rate` is
    in Hz.
    """

    num_samples: int
    sample_rate: int
    blocks: Callable[[BinaryIO, int], Iterator[NDArray[np.float32]]]
    padding: int = 0

    def within(self, view: Callable[[BinaryIO], BinaryIO]) -> Self:
        """Return the sound of a file in which `view` finds this one's file."""
        return replace(self, blocks=lambda stream, start: self.blocks(view(stream), start))


def drop(blocks: Iterable[NDArray[np.float32]], num_samples: int) -> Iterator[NDArray[np.float32]]:
    """Yield `blocks` without their first `num_samples` samples."""
    for block in blocks:
        yield block[num_samples:]
        num_samples = max(0, num_samples - len(block))


def open_sound(
    stream: BinaryIO, settings: dict[str, Any] | None = None, announced: int = 0, per_block: int = 0
) -> Sound:
    """Return the sound of `stream`; only the header is read.

    `settings` are libsndfile's, for a stream without a header. `announced` is the number of samples that the file
    announces, 0 if unknown. `per_block` is the number of samples in a block of its codec: libsndfile returns whole
    blocks.
    """
    with _open_sound_file(stream, settings) as sound:
        if settings is None and sound.format not in FORMATS:
            raise MediaRefusal(
                f"found a recording in the format {sound.format}, which is not supported; convert it to WAV"
            )
        num_samples, rate = sound.frames, sound.samplerate
    padding = num_samples - announced if num_samples - per_block < announced < num_samples else 0

    def decode_all(sound: Any) -> Iterator[NDArray[np.float32]]:
        size = max(1, BLOCK_VALUES // sound.channels)
        while len(block := sound.read(size, dtype="float32", always_2d=True)):
            yield block[:, 0] if sound.channels == 1 else block.mean(axis=1)

    def blocks(stream: BinaryIO, start: int) -> Iterator[NDArray[np.float32]]:
        with _open_sound_file(stream, settings) as sound:
            if sound.subtype in SEEKABLE:
                sound.seek(start)
                yield from decode_all(sound)
            else:
                yield from drop(decode_all(sound), start)

    return Sound(num_samples - padding, rate, blocks, padding)


class _SafeStream:
    """A file for libsndfile that stores read errors: C code calls it, so an exception would only be printed."""

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

    def write(self, data: bytes) -> int:  # libsndfile requires the method but never calls it
        raise io.UnsupportedOperation


@contextmanager
def _open_sound_file(stream: BinaryIO, settings: dict[str, Any] | None) -> Iterator[Any]:
    soundfile, file = _import_soundfile(), _SafeStream(stream)
    try:
        with soundfile.SoundFile(file, **(settings or {})) as sound:
            yield sound
    except soundfile.LibsndfileError as error:
        if file.error:
            raise file.error from None
        raise MediaRefusal(f"found no readable recording ({error.error_string})") from None
    if file.error:
        raise file.error


def _import_soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: soundfile is installed, libsndfile is not
        raise UserError(
            "found a recording but no soundfile; install it: pip install 'kebyt5-xm[audio]'"
        ) from None
    return soundfile


def import_pyav() -> Any:
    """Return PyAV, which keeps FFmpeg silent by default."""
    try:
        import av
    except ImportError:
        raise UserError(
            "found a compressed recording but no PyAV (av); install it: pip install 'kebyt5-xm[audio]'"
        ) from None
    return av


def decode_packets(codec: str, packets: Iterable[bytes], sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of mono float32 for the `packets` of a stream without a container."""
    av = import_pyav()
    # OpenCORE handles pauses in speech (DTX), FFmpeg's own decoder does not.
    names = [f"libopencore_{codec}"] if codec.startswith("amr") else []
    context = next(
        av.CodecContext.create(name, "r") for name in (*names, codec) if name in av.codecs_available
    )
    context.options = dict(STRICT)
    context.thread_count = 1
    for packet in packets:
        yield from decode(context, av.Packet(packet), sample_rate)
    yield from decode(context, None, sample_rate)


def decode(context: Any, packet: Any, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield blocks of mono float32 for a packet; None flushes the decoder."""
    try:
        frames = context.decode(packet)
    except import_pyav().error.FFmpegError as error:
        raise MediaRefusal(f"truncated or damaged: a packet cannot be decoded ({error.strerror})") from None
    for frame in frames:
        if frame.is_corrupt:
            raise MediaRefusal("damaged: the decoder found a corrupt frame")
        if frame.sample_rate != sample_rate:
            raise MediaRefusal(
                f"its header says {sample_rate} Hz, its sound has {frame.sample_rate} Hz (HE-AAC?); convert it to "
                "FLAC or WAV"
            )
        yield mix_to_mono(frame)


def mix_to_mono(frame: Any) -> NDArray[np.float32]:
    """Return the mean over a frame's channels, [samples]; integers are scaled to -1..1."""
    name, count = frame.format.name, frame.samples
    dtype = DTYPES[name.removesuffix("p")]
    if name.endswith("p"):  # planar: each channel has its own buffer
        channels = [np.frombuffer(plane, dtype, count) for plane in frame.planes]
    else:
        width = len(frame.layout.channels)
        channels = list(np.frombuffer(frame.planes[0], dtype, count * width).reshape(count, width).T)
    waveform = channels[0] if len(channels) == 1 else np.mean(channels, axis=0, dtype=np.float64)
    if dtype is np.uint8:
        waveform = (waveform - 128.0) / 128
    elif np.issubdtype(dtype, np.integer):
        waveform = waveform / np.float64(1 << (8 * dtype().itemsize - 1))
    return np.asarray(waveform, dtype=np.float32)
