"""Recordings: any common file becomes one channel of float32 at its own rate, or a `MediaError`.

- PCM in WAV, AIFF, CAF, AU and W64, and Vorbis and Opus in Ogg, are read through libsndfile; FLAC, MP3, AAC, AMR,
  MP4 (M4A, MOV, 3GP) and Matroska (WebM) through FFmpeg. docs/data.md has the table. The content decides, not the
  extension; only what has no header is told by its name: `.pcm` (see `pcm`).
- Several channels are averaged. The sample rate is kept: resampling is the encoder's preprocessor's.
- The length is known before anything is decoded, and its limit is checked then. Decoding has to give exactly as
  many samples, or the recording is refused with both numbers. Nothing is ever cut.
- A truncated or damaged file is refused, as far as its format shows it.
- Zero samples, NaN and infinite samples, and rates outside 8 to 192 kHz are refused. Silence is a recording.
"""

import io
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.recordings.boxes import EBML, MOVIE_BOXES, check_matroska, check_movie
from kebyt5_xm.data.media.recordings.chunks import Samples, find_samples
from kebyt5_xm.data.media.recordings.demuxed import demuxed_sound, flac_sound
from kebyt5_xm.data.media.recordings.frames import adts_sounds, amr_sounds, is_adts, mpeg_sounds
from kebyt5_xm.data.media.recordings.mp3 import mpeg_frame
from kebyt5_xm.data.media.recordings.ogg import ogg_sounds
from kebyt5_xm.data.media.recordings.pcm import SETTINGS, is_headerless
from kebyt5_xm.data.media.recordings.sndfile import open_sound
from kebyt5_xm.data.media.recordings.sound import Sound
from kebyt5_xm.data.media.recordings.tags import end_of_sound, start_of_sound
from kebyt5_xm.data.media.reference import Limits, Readable, Refused, failures_of, reading
from kebyt5_xm.data.media.stretch import stretch

if TYPE_CHECKING:
    from kebyt5_xm.encoder import AudioHeader

# Telephone to studio. A damaged header may say 1 Hz, and resampling that would fill the memory.
MIN_RATE, MAX_RATE = 8_000, 192_000
MAX_CHANNELS = 64
"""Above, a waveform [time, channels] is taken for something else."""
OTHERS = {
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "WMA (ASF)",
    b"MAC ": "Monkey's Audio",
    b"wvpk": "WavPack",
    b"TTA1": "True Audio",
    b"FLV\x01": "Flash video",
    b"NIST_1A": "NIST Sphere",
    b"Creative Voice": "VOC",
    b"ajkg": "Shorten",
    b"\x0b\x77": "AC-3",
    b"DSD ": "DSD",
    b"\0\0\x01\xba": "MPEG video",
}
"""How files begin that are known, and not read."""


def open_audio(source: Readable, limits: Limits | None = None) -> tuple[NDArray[np.float32], int]:
    """Return (mono float32 [samples], sample rate in Hz); raise `MediaError` if it cannot be had."""
    with reading(source) as stream:
        sounds = _sounds(source, stream, limits or Limits())
        waveform = np.empty(sum(sound.num_samples for sound in sounds), dtype=np.float32)
        at = 0
        for sound in sounds:
            _decode(sound, waveform[at : at + sound.num_samples])
            at += sound.num_samples
        _check(waveform, sounds[0].sample_rate)
        return waveform, sounds[0].sample_rate


def audio_header(source: Readable, limits: Limits | None = None) -> "AudioHeader":
    """Return the length and rate without decoding; raise `MediaError` as `open_audio` would."""
    from kebyt5_xm.encoder import AudioHeader

    with reading(source) as stream:
        sounds = _sounds(source, stream, limits or Limits())
        return AudioHeader(sum(sound.num_samples for sound in sounds), sounds[0].sample_rate)


def _decode(sound: Sound, waveform: NDArray[np.float32]) -> None:
    """Fill `waveform` with `sound`; raise `Refused` unless it has exactly the samples that it announces."""
    expected, found = sound.num_samples + sound.padding, 0
    for block in sound.blocks():
        kept = block[: max(0, len(waveform) - found)]
        waveform[found : found + len(kept)] = kept
        found += len(block)
        if found > expected:
            raise Refused(f"the header says {sound.num_samples} samples, found more ({found}); write it anew")
    if found < expected:
        raise Refused(f"truncated: the header says {expected} samples, found {found}")


def _sounds(source: Readable, stream: BinaryIO, limits: Limits) -> list[Sound]:
    """Return what the recording consists of, at least one; it is within the limits."""
    sounds = _found(source, stream, limits.max_seconds)
    rates = sorted({sound.sample_rate for sound in sounds})
    for rate in rates:
        if not MIN_RATE <= rate <= MAX_RATE:
            raise Refused(f"found a sample rate of {rate} Hz, expected {MIN_RATE} to {MAX_RATE}")
    if len(rates) > 1:
        raise Refused(
            f"found recordings of {' and '.join(map(str, rates))} Hz, joined to one file; expected one rate"
        )
    num_samples = sum(sound.num_samples for sound in sounds)
    if min(sound.num_samples for sound in sounds) < 0 or num_samples < 1:
        raise Refused("found no samples")
    if num_samples > limits.max_seconds * rates[0]:
        raise Refused(
            f"found {num_samples / rates[0]:.1f} seconds, expected at most {limits.max_seconds:g}; "
            "raise max_seconds or cut the recording into pieces"
        )
    return sounds


def _found(source: Readable, stream: BinaryIO, max_seconds: float) -> list[Sound]:
    if is_headerless(source, stream):
        return [open_sound(stream, SETTINGS)]
    size = stream.seek(0, io.SEEK_END)
    start = start_of_sound(stream)
    stream.seek(start)
    magic = stream.read(32)
    if samples := find_samples(stream, start, size):
        if samples.mpeg:
            return mpeg_sounds(stream, samples.start, samples.end, max_seconds)
        return [_chunked(stream, start, size, samples)]
    if magic[4:8] in MOVIE_BOXES and not start:
        check_movie(stream, size)
        return [demuxed_sound(stream, "mov", max_seconds)]
    if magic[:4] == EBML and not start:
        check_matroska(stream, size)
        return [demuxed_sound(stream, "matroska", max_seconds)]
    end = end_of_sound(stream)
    if magic[:4] == b"OggS":
        return ogg_sounds(stream, start, end, max_seconds)
    if magic[:4] == b"fLaC":
        return [flac_sound(stretch(stream, start, end), max_seconds)]
    if magic[:5] == b"#!AMR" and not start:
        return amr_sounds(stream, end, max_seconds)
    if is_adts(magic):
        return adts_sounds(stream, start, end, max_seconds)
    if mpeg_frame(magic):
        return mpeg_sounds(stream, start, end, max_seconds)
    name = "AVI" if magic[8:12] == b"AVI " else None
    name = name or next((name for begin, name in OTHERS.items() if magic.startswith(begin)), None)
    if name:
        raise Refused(f"found {name}, which is not read; convert it: ffmpeg -i IN OUT.flac")
    raise Refused("found no readable recording (its beginning is that of no format that is read)")


def _chunked(stream: BinaryIO, start: int, size: int, samples: Samples) -> Sound:
    """Return the sound of a file of chunks, as libsndfile reads it."""
    if samples.head:
        stream = stretch(stream, samples.start, samples.end, samples.head)
    elif start or not samples.tail:
        stream = stretch(stream, start, size if samples.tail else samples.end)
    sound = open_sound(stream, promised=samples.promised, per_block=samples.per_block)
    if samples.held and sound.num_samples != samples.held:
        raise Refused(
            f"malformed: its bytes hold {samples.held} samples, libsndfile finds {sound.num_samples}; write it anew"
        )
    return sound


def as_mono(samples: Any, sample_rate: Any) -> tuple[NDArray[np.float32], int]:
    """Return samples that are already in memory as `open_audio` would: arrays, or tensors of torch.

    They are floats, [time], or of several channels, [time, channels] or [channels, time], where the one side is at
    most 64 and the other more than four times as long. Integers are refused, as their range is not known.
    """
    with failures_of("the recording"):
        if hasattr(samples, "detach"):
            samples = samples.detach().cpu()
            samples = samples.float().numpy() if samples.is_floating_point() else samples.numpy()
        samples = np.asarray(samples)
        waveform = _mixed(samples).astype(np.float32)
        rate = _whole(sample_rate)
        _check(waveform, rate)
        return waveform, rate


def _whole(sample_rate: Any) -> int:
    try:
        rate = int(sample_rate)
        if rate == sample_rate:
            return rate
    except (TypeError, ValueError, OverflowError):
        pass
    raise Refused(f"found a sample rate of {str(sample_rate)[:60]!r}, expected a whole number of Hz")


def _mixed(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the mean over the channels, [time]."""
    if samples.dtype.kind != "f":
        remedy = f"; divide by {1 << (8 * samples.dtype.itemsize - 1)}" if samples.dtype.kind == "i" else ""
        raise Refused(
            f"found {samples.dtype} of shape {list(samples.shape)}, expected floats from -1 to 1{remedy}"
        )
    if samples.ndim == 1:
        return samples
    if samples.ndim == 2:
        short, long = sorted(samples.shape)
        if short in (0, 1):
            return samples.reshape(-1)
        if short <= MAX_CHANNELS and long > 4 * short:
            return samples.mean(axis=int(samples.shape[1] == short), dtype=np.float64)
    raise Refused(
        f"found samples of shape {list(samples.shape)}, expected [time], [channels, time] or [time, channels]; "
        "give one channel"
    )


def _check(waveform: NDArray[np.float32], sample_rate: int) -> None:
    if not MIN_RATE <= sample_rate <= MAX_RATE:
        raise Refused(f"found a sample rate of {sample_rate} Hz, expected {MIN_RATE} to {MAX_RATE}")
    if not len(waveform):
        raise Refused("found no samples")
    if not np.isfinite(waveform).all():
        raise Refused("found samples that are NaN or infinite")
