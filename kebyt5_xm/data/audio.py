"""Recordings: any common file becomes one channel of float32 at its own rate, or a `MediaError`.

- WAV, AIFF, FLAC, Ogg (Vorbis, Opus) and MP3 are read, through libsndfile. The content decides, not the
  extension; only what has no header is told by its name: `.pcm` (see `pcm`).
- Several channels are averaged. The sample rate is kept: resampling is the encoder's preprocessor's.
- The length limit is checked from the header, before anything is decoded. Nothing is ever cut.
- A truncated file is refused, as far as its format shows it (libsndfile alone would shorten a WAV silently).
- Zero samples, NaN and infinite samples, and rates outside 8 to 192 kHz are refused. Silence is a recording.
"""

import io
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.mp3 import with_length
from kebyt5_xm.data.pcm import SETTINGS, is_headerless
from kebyt5_xm.data.reference import Limits, Readable, Refused, failures_of, reading
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kebyt5_xm.encoder import AudioHeader

FORMATS = ("WAV", "WAVEX", "AIFF", "FLAC", "OGG", "MP3")
# Telephone to studio. A damaged header may say 1 Hz, and resampling that would fill the memory.
MIN_RATE, MAX_RATE = 8_000, 192_000
BLOCK_VALUES = 1 << 20  # decoded at a time, whatever the number of channels
# Writers that cannot seek back leave a length near 2^31 or 2^32 in a WAV: it means "until the end".
UNKNOWN_LENGTH = 0x7FFFF000
UNKNOWN_FRAMES = 0x7FFF_FFFF_FFFF_FFFF  # libsndfile's, of a FLAC that was written to a pipe
MAX_OGG_PAGE = 65_307  # bytes (RFC 3533, section 6)
OGG_END = 0x04  # of a page's header type, in the last page of a stream (the same section)


def open_audio(source: Readable, limits: Limits | None = None) -> tuple[NDArray[np.float32], int]:
    """Return (mono float32 [samples], sample rate in Hz); raise `MediaError` if it cannot be had."""
    limits = limits or Limits()
    with reading(source) as stream, _sound_file(source, stream, limits) as sound:
        waveform = np.empty(sound.frames, dtype=np.float32)
        filled = 0
        while filled < sound.frames:
            block = sound.read(max(1, BLOCK_VALUES // sound.channels), dtype="float32", always_2d=True)
            if not len(block):
                raise Refused(f"truncated: the header says {sound.frames} samples, found {filled}")
            block = block[: sound.frames - filled]
            waveform[filled : filled + len(block)] = block.mean(axis=1)
            filled += len(block)
        _check(waveform, sound.samplerate)
        return waveform, sound.samplerate


def audio_header(source: Readable, limits: Limits | None = None) -> "AudioHeader":
    """Return the length and rate without decoding; raise `MediaError` as `open_audio` would."""
    from kebyt5_xm.encoder import AudioHeader

    with reading(source) as stream, _sound_file(source, stream, limits or Limits()) as sound:
        return AudioHeader(num_samples=sound.frames, sample_rate=sound.samplerate)


def as_mono(samples: NDArray[Any], sample_rate: int) -> tuple[NDArray[np.float32], int]:
    """Return samples that are already in memory, [time] or [time, channels], as `open_audio` would."""
    with failures_of("the recording"):
        samples = np.asarray(samples)
        if samples.ndim not in (1, 2) or samples.dtype.kind != "f":
            raise Refused(
                f"found {samples.dtype} of shape {samples.shape}, expected floats, [time] or [time, channels]"
            )
        waveform = samples.mean(axis=1) if samples.ndim == 2 else samples
        waveform = waveform.astype(np.float32)
        _check(waveform, sample_rate)
        return waveform, int(sample_rate)


def _check(waveform: NDArray[np.float32], sample_rate: int) -> None:
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise Refused(f"found a sample rate of {sample_rate} Hz, expected {MIN_RATE} to {MAX_RATE}")
    if not len(waveform):
        raise Refused("found no samples")
    if not np.isfinite(waveform).all():
        raise Refused("found samples that are NaN or infinite")


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, libsndfile is not
        raise UserError(
            "found a recording but no soundfile; install it: pip install 'kebyt5-xm[audio]'"
        ) from None
    return soundfile


@contextmanager
def _sound_file(source: Readable, stream: BinaryIO, limits: Limits) -> "Iterator[Any]":
    soundfile = _soundfile()
    raw = is_headerless(source, stream)
    if raw:
        mp3, settings = None, SETTINGS
    else:
        _refuse_truncated(stream)
        mp3, settings = with_length(stream, limits.max_seconds), {}
    stream.seek(0)
    try:
        sound = soundfile.SoundFile(mp3 or stream, **settings)
    except soundfile.LibsndfileError as error:
        raise Refused(f"found no readable recording ({error.error_string})") from None
    with sound:
        if sound.format == "MP3" and mp3 is None:
            raise Refused("damaged: the MP3 stream does not start with a frame")
        if not raw and sound.format not in FORMATS:
            raise Refused(f"found a recording in the format {sound.format}, expected {', '.join(FORMATS)}")
        if not MIN_RATE <= sound.samplerate <= MAX_RATE:
            raise Refused(f"found a sample rate of {sound.samplerate} Hz, expected {MIN_RATE} to {MAX_RATE}")
        if sound.frames < 1:
            raise Refused("found no samples")
        if sound.frames == UNKNOWN_FRAMES:
            raise Refused("its header does not say how long it is, which is needed beforehand; write it anew")
        if sound.frames > limits.max_seconds * sound.samplerate:
            raise Refused(
                f"found {sound.frames / sound.samplerate:.1f} seconds, expected at most "
                f"{limits.max_seconds:g}; raise max_seconds or cut the recording into pieces"
            )
        yield sound


def _refuse_truncated(stream: BinaryIO) -> None:
    """Refuse a WAV, AIFF or Ogg file that ends before its own structure says."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    start = stream.read(12)
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        _refuse_short_chunk(stream, size, b"data", "little")
    elif start[:4] == b"FORM" and start[8:] in (b"AIFF", b"AIFC"):
        _refuse_short_chunk(stream, size, b"SSND", "big")
    elif start[:4] == b"OggS":
        stream.seek(max(0, size - 2 * MAX_OGG_PAGE))
        tail = stream.read()
        page = tail[tail.rfind(b"OggS") :]
        # A page is 27 bytes, the number of its segments among them, then their lengths, then the segments.
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            raise Refused("truncated: the last page of the Ogg stream is incomplete")
        if not page[5] & OGG_END:
            raise Refused("truncated: the last page of the Ogg stream does not say that it is; write it anew")


def _refuse_short_chunk(stream: BinaryIO, size: int, samples: bytes, order: Literal["little", "big"]) -> None:
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        chunk = stream.read(8)
        length = int.from_bytes(chunk[4:], order)
        if chunk[:4] == samples:
            if position + 8 + length > size and length < UNKNOWN_LENGTH:
                raise Refused(f"truncated: {length} bytes of samples announced, {size - position - 8} found")
            return
        position += 8 + length + length % 2
    raise Refused(f"truncated: found no chunk of samples ({samples.decode()})")
