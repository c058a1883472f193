"""Decodes common audio files to mono float32 at their own sample rate, or raises a `MediaError`.

- libsndfile reads PCM in WAV, AIFF, CAF, AU and W64, and Vorbis and Opus in Ogg. FFmpeg reads FLAC, MP3, AAC, AMR,
  MP4 (M4A, MOV, 3GP) and Matroska (WebM). docs/data.md has the table. The content decides the format, not the
  extension. Only samples without a header are recognised by their suffix, `.pcm`.
- Several channels are averaged. The sample rate is kept: the encoder's preprocessor resamples.
- The length is known, and its limit checked, before anything is decoded. If decoding gives another number of samples,
  the recording is refused with both numbers. Nothing is ever cut.
- An `Excerpt` equals that stretch of the whole recording to the bit. Decoding begins as late, and ends as early, as
  the codec allows, and memory holds the excerpt alone. A local file is parsed for its first excerpt only.
- A truncated or damaged file is refused if its format reveals the damage.
- Zero samples, NaN and infinite samples, and rates outside 8 to 192 kHz are refused. Silence is a recording.
"""

import io
import math
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.bad_sample import LimitRefusal
from kebyt5_xm.data.media.byte_ranges import open_range
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.recordings.boxes import EBML, MOVIE_BOXES, check_matroska, check_movie
from kebyt5_xm.data.media.recordings.chunks import Samples, find_samples
from kebyt5_xm.data.media.recordings.containers import open_container, open_flac
from kebyt5_xm.data.media.recordings.decoders import Sound, open_sound
from kebyt5_xm.data.media.recordings.frames import (
    find_adts_sounds,
    find_amr_sounds,
    find_mpeg_sounds,
    is_adts,
    parse_mpeg_frame,
)
from kebyt5_xm.data.media.recordings.ogg import find_ogg_sounds
from kebyt5_xm.data.media.recordings.tags import find_sound_end, find_sound_start
from kebyt5_xm.data.media.recordings.waveform import check_rate, check_waveform
from kebyt5_xm.data.media.reference import (
    FileSpan,
    Limits,
    LocalPath,
    MediaRefusal,
    Readable,
    RemoteUrl,
    open_readable,
)

if TYPE_CHECKING:
    from kebyt5_xm.encoder import AudioHeader

HEADERLESS_SUFFIX = ".pcm"
HEADERLESS_SETTINGS: dict[str, Any] = {
    "samplerate": 16_000,
    "channels": 1,
    "format": "RAW",
    "subtype": "PCM_16",
    "endian": "LITTLE",
}
"""libsndfile's settings for files with this suffix: the format of KsponSpeech (Bang et al. 2020)."""
HEADER_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff", b".snd", b"fLaC", b"OggS")
UNSUPPORTED = {
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
"""First bytes of known formats that are not supported."""
FILES_REMEMBERED = 64
"""Local files whose sounds a process remembers, the last used. A 3-hour MP3 takes 3 MB. Our own choice."""


def open_audio(source: Readable, limits: Limits | None = None) -> tuple[NDArray[np.float32], int]:
    """Return (mono float32 [samples], sample rate in Hz); raise `MediaError` if the file cannot be read."""
    with open_readable(source) as stream:
        sounds, begin, stop = _find_stretch(source, stream, limits or Limits())
        waveform = np.empty(stop - begin, dtype=np.float32)
        found = 0
        for block in _checked_blocks(sounds, begin, stop, stream):
            waveform[found : found + len(block)] = block
            found += len(block)
        return waveform, sounds[0].sample_rate


def stream_audio(source: Readable, limits: Limits | None = None) -> Iterator[NDArray[np.float32]]:
    """Yield a recording in blocks, mono float32 [samples], with one of them in memory.

    Raises the `MediaError` of `open_audio`; for damage when it is reached.
    """
    with open_readable(source) as stream:
        yield from _checked_blocks(*_find_stretch(source, stream, limits or Limits()), stream)


def read_audio_header(source: Readable, limits: Limits | None = None) -> "AudioHeader":
    """Return the length and rate without decoding; raise the `MediaError` of `open_audio`."""
    from kebyt5_xm.encoder import AudioHeader

    with open_readable(source) as stream:
        sounds, begin, stop = _find_stretch(source, stream, limits or Limits())
        return AudioHeader(stop - begin, sounds[0].sample_rate)


def _checked_blocks(
    sounds: list[Sound], begin: int, stop: int, stream: BinaryIO
) -> Iterator[NDArray[np.float32]]:
    """Yield the samples `begin` to `stop` (exclusive) of the sounds, in blocks.

    Raises `MediaRefusal` if a sound ends before them. Of a sound whose last sample is among them, the length must be
    exactly the announced one.
    """
    position = 0
    for sound in sounds:
        first, last = max(begin - position, 0), min(stop - position, sound.num_samples)
        if first < last:
            yield from _checked_blocks_of(sound, first, last, stream)
        position += sound.num_samples


def _checked_blocks_of(
    sound: Sound, begin: int, stop: int, stream: BinaryIO
) -> Iterator[NDArray[np.float32]]:
    expected, found = sound.num_samples + sound.padding, begin
    for block in sound.blocks(stream, begin):
        used = block[: max(0, stop - found)]
        found += len(block)
        if found > expected:
            raise MediaRefusal(
                f"the header says {sound.num_samples} samples, found more ({found}); write the file again"
            )
        if len(used):
            check_waveform(used, sound.sample_rate)
            yield used
        if found >= stop and stop < sound.num_samples:
            return
    if found < expected:
        raise MediaRefusal(f"truncated: the header says {expected} samples, found {found}")


def _find_stretch(source: Readable, stream: BinaryIO, limits: Limits) -> tuple[list[Sound], int, int]:
    """Return the sounds of a recording, the first sample of them to read, and the one behind the last.

    Raises `MediaRefusal` if a limit is exceeded.
    """
    if isinstance(source, Excerpt):
        sounds = _find_remembered(source.source, stream)
    else:
        sounds = _identify_sounds(source, stream, limits.max_seconds)
    rates = sorted({sound.sample_rate for sound in sounds})
    for rate in rates:
        check_rate(rate)
    if len(rates) > 1:
        raise MediaRefusal(
            f"found recordings of {' and '.join(map(str, rates))} Hz joined in one file, expected one rate"
        )
    num_samples = sum(sound.num_samples for sound in sounds)
    if min(sound.num_samples for sound in sounds) < 0 or num_samples < 1:
        raise MediaRefusal("found no samples")
    begin, stop = source.bounds(num_samples, rates[0]) if isinstance(source, Excerpt) else (0, num_samples)
    if stop - begin > limits.max_seconds * rates[0]:
        raise LimitRefusal(
            f"found {(stop - begin) / rates[0]:.1f} seconds, expected at most {limits.max_seconds:g}; "
            "raise max_seconds or cut the recording into pieces"
        )
    return sounds, begin, stop


def _find_remembered(source: Readable, stream: BinaryIO) -> list[Sound]:
    """Return the sounds of a file of any length; a local one is parsed again only if it has changed."""
    if isinstance(source, FileSpan):
        path = source.path
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
    else:
        return _identify_sounds(source, stream, math.inf)
    name = source.name if isinstance(source, LocalPath) else ""
    state = os.stat(path)
    return _find_once(source, name, (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=FILES_REMEMBERED)
def _find_once(source: Readable, name: str, state: tuple[int, ...]) -> list[Sound]:
    """Return the sounds of a local file in this state. `name` tells links to it apart, which are equal as texts."""
    with open_readable(source) as stream:
        return _identify_sounds(source, stream, math.inf)


def _identify_sounds(source: Readable, stream: BinaryIO, max_seconds: float) -> list[Sound]:
    if _is_headerless(source, stream):
        return [open_sound(stream, HEADERLESS_SETTINGS)]
    size = stream.seek(0, io.SEEK_END)
    start = find_sound_start(stream)
    stream.seek(start)
    magic = stream.read(32)
    if samples := find_samples(stream, start, size):
        if samples.mpeg:
            return find_mpeg_sounds(stream, samples.start, samples.end, max_seconds)
        return [_open_chunked(stream, start, size, samples)]
    if magic[4:8] in MOVIE_BOXES and not start:
        check_movie(stream, size)
        return [open_container(stream, "mov", max_seconds)]
    if magic[:4] == EBML and not start:
        check_matroska(stream, size)
        return [open_container(stream, "matroska", max_seconds)]
    end = find_sound_end(stream)
    if magic[:4] == b"OggS":
        return find_ogg_sounds(stream, start, end, max_seconds)
    if magic[:4] == b"fLaC":
        view = partial(open_range, start=start, end=end)
        return [open_flac(view(stream), max_seconds).within(view)]
    if magic[:5] == b"#!AMR" and not start:
        return find_amr_sounds(stream, end, max_seconds)
    if is_adts(magic):
        return find_adts_sounds(stream, start, end, max_seconds)
    if parse_mpeg_frame(magic):
        return find_mpeg_sounds(stream, start, end, max_seconds)
    name = "AVI" if magic[8:12] == b"AVI " else None
    name = name or next((name for begin, name in UNSUPPORTED.items() if magic.startswith(begin)), None)
    if name:
        raise MediaRefusal(f"found {name}, which is not supported; convert it: ffmpeg -i IN OUT.flac")
    raise MediaRefusal("found no readable recording (its first bytes match no supported format)")


def _is_headerless(source: Readable, stream: BinaryIO) -> bool:
    """Return whether `source`, opened as `stream`, holds samples without a header.

    Only the name can tell: the path, URL or shard member must end in `.pcm`. Bytes without a name never count as
    headerless. A `.pcm` file that begins like a WAV, AIFF, CAF, AU, FLAC or Ogg file is read as that format. Some
    recordings of KsponSpeech have an odd number of bytes: their last byte is half a sample and is dropped.
    """
    match source:
        case LocalPath() | RemoteUrl() | FileSpan():
            name = source.name  # behind a link, the file itself may have any name
        case str() | os.PathLike():
            name = os.fspath(source)
        case _:
            return False
    if not name.lower().endswith(HEADERLESS_SUFFIX):
        return False
    stream.seek(0)
    return stream.read(4) not in HEADER_MAGICS


def _open_chunked(stream: BinaryIO, start: int, size: int, samples: Samples) -> Sound:
    """Return the sound of a chunked file (WAV, AIFF, ...), read by libsndfile."""

    def view(file: BinaryIO) -> BinaryIO:
        if samples.head:
            return open_range(file, samples.start, samples.end, samples.head)
        if start or not samples.tail:
            return open_range(file, start, size if samples.tail else samples.end)
        return file

    sound = open_sound(view(stream), announced=samples.announced, per_block=samples.per_block)
    if samples.stored and sound.num_samples != samples.stored:
        raise MediaRefusal(
            f"malformed: its bytes hold {samples.stored} samples, libsndfile finds {sound.num_samples}; write the "
            "file again"
        )
    return sound.within(view)
