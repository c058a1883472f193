"""Reads sound in containers that FFmpeg demuxes: MP4 and its variants, Matroska, WebM and FLAC.

The packets give the number of samples before anything is decoded: their durations if the container counts in samples,
else the codec's number of samples per packet. Where neither is known (Vorbis and FLAC in Matroska), the sound is
decoded once to count its samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.recordings.decoders import STRICT, Sound, decode, drop, import_pyav
from kebyt5_xm.data.media.recordings.frames import parse_mpeg_frame
from kebyt5_xm.data.media.reference import MediaRefusal

Format = Literal["mov", "matroska", "flac", "ogg"]
"""FFmpeg's demuxers. The demuxer is always given, because some others open further files or URLs."""

FRAME_SAMPLES = {"aac": 1024, "amr_nb": 160, "amr_wb": 320}
"""Samples per packet of a codec, unless FFmpeg gives another number for the stream."""
CODECS = {*FRAME_SAMPLES, "mp3", "opus", "vorbis", "flac", "alac"}  # and pcm_*
INDEPENDENT = ("alac", "flac")  # codecs, besides pcm_*, whose packets need no earlier packet
# Samples at 48 kHz in an Opus frame, by the upper five bits of a packet (RFC 6716, table 2): SILK, hybrid, CELT.
OPUS_FRAMES = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4


def open_container(stream: BinaryIO, format: Format, max_seconds: float) -> Sound:
    """Return the only sound of `stream`; raise `MediaRefusal` for no sound, several, or an unsupported codec."""
    with _open_audio_stream(stream, format) as (container, audio):
        rate = audio.codec_context.sample_rate
        max_samples = max_seconds * rate + 1
        num_samples, padding = _count_samples(container, audio, max_samples)
    if num_samples is None:
        num_samples = 0
        for block in _decode_blocks(stream, 0, format, rate):
            num_samples += len(block)
            if num_samples > max_samples:
                break
    return Sound(num_samples, rate, partial(_decode_blocks, format=format, rate=rate), padding)


def open_flac(stream: BinaryIO, max_seconds: float) -> Sound:
    """Return the sound of a FLAC file. Its header states the length (RFC 9639, 8.2); if not, samples are counted.

    Decoding later verifies the length.
    """
    stream.seek(0)
    start = stream.read(26)
    numbers = int.from_bytes(start[18:26], "big")  # rate: 20 bits, channels: 3, bits: 5, samples: 36
    rate, num_samples = numbers >> 44, numbers & (1 << 36) - 1
    if start[4:5] not in (b"\0", b"\x80") or not num_samples:
        return open_container(stream, "flac", max_seconds)
    return Sound(num_samples, rate, partial(_decode_blocks, format="flac", rate=rate))


def _decode_blocks(stream: BinaryIO, start: int, format: Format, rate: int) -> Iterator[NDArray[np.float32]]:
    with _open_audio_stream(stream, format) as (container, audio):
        entered = _enter(container, audio, format, start)
        if entered is not None:
            position, packets = entered
            decoded = (decode(audio.codec_context, packet, rate) for packet in packets)
            yield from drop(chain.from_iterable(decoded), start - position)
            return
    yield from drop(_decode_blocks(stream, 0, format, rate), start)


def _enter(container: Any, audio: Any, format: Format, start: int) -> tuple[int, Iterator[Any]] | None:
    """Return the sample at which decoding begins so that sample `start` is exact, and the packets from there on.

    It is the first sample if the codec decodes to other bits from the middle on (Opus, AAC, MP3, Vorbis). None means
    that packets were read and the first one needed is not among them; the stream must be opened again.
    """
    packets, name = _read_packets(container, audio), _codec_name(audio)
    if not start or (name not in INDEPENDENT and not name.startswith("pcm_")):
        return 0, packets
    if format == "flac":
        return _seek_flac(container, audio, packets, start)
    position = 0
    for packet in packets:
        count = _count_packet_samples(packet, audio) if packet.size else None
        if count is None or packet.is_discard or packet.has_sidedata("skip_samples"):
            return None
        if position + count > start:
            return position, chain([packet], packets)
        position += count
    return None


def _seek_flac(
    container: Any, audio: Any, packets: Iterator[Any], start: int
) -> tuple[int, Iterator[Any]] | None:
    if audio.time_base * audio.codec_context.sample_rate != 1:
        return None
    try:
        container.seek(start, stream=audio)
    except import_pyav().error.FFmpegError:
        return None
    first = next(packets, None)  # a FLAC frame states the number of its first sample (RFC 9639, 9.1.5)
    if first is None or first.pts is None or first.pts > start:
        return None
    return first.pts, chain([first], packets)


@contextmanager
def _open_audio_stream(stream: BinaryIO, format: Format) -> Iterator[tuple[Any, Any]]:
    av = import_pyav()
    stream.seek(0)
    try:
        # Tags may be in cp949 or Latin-1; they must not make the file unreadable.
        container = av.open(stream, format=format, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaRefusal(f"found no readable recording ({error.strerror})") from None
    with container:
        found = container.streams.audio
        if not found:
            raise MediaRefusal("found no sound in it")
        if len(found) > 1:
            raise MediaRefusal(
                f"found {len(found)} streams of sound, expected one; extract the right one: "
                "ffmpeg -i IN -map 0:a:0 OUT.flac"
            )
        name = _codec_name(found[0])
        if name not in CODECS and not name.startswith("pcm_"):
            raise MediaRefusal(
                f"found sound as {name}, which is not supported; convert it: ffmpeg -i IN OUT.flac"
            )
        found[0].codec_context.thread_count = 1
        found[0].codec_context.options = dict(STRICT)
        yield container, found[0]


def _codec_name(audio: Any) -> str:
    return str(audio.codec_context.codec.canonical_name)


def _read_packets(container: Any, audio: Any) -> Iterator[Any]:
    """Yield the packets of `audio`; the last one is empty and flushes the decoder."""
    try:
        for packet in container.demux(audio):
            if packet.is_corrupt:
                raise MediaRefusal("truncated: a packet of sound is incomplete")
            yield packet
    except import_pyav().error.FFmpegError as error:
        raise MediaRefusal(f"damaged: its packets cannot be read ({error.strerror})") from None


def _count_samples(container: Any, audio: Any, max_samples: float) -> tuple[int | None, int]:
    """Return the number of samples (None if only decoding tells) and the padding that the decoder adds."""
    total = padding = skip = 0
    for packet in _read_packets(container, audio):
        if not packet.size:
            continue
        count = _count_packet_samples(packet, audio)
        if count is None:
            return None, 0
        # In an MP4, the duration of the last packet excludes the padding of its frame.
        duration = _packet_duration(packet, audio)
        padding = count - duration if duration is not None and 0 < duration < count else 0
        if packet.has_sidedata("skip_samples"):
            # 4 bytes: samples to skip at the start; 4 bytes: at the end.
            skipped = bytes(packet.get_sidedata("skip_samples"))
            skip += int.from_bytes(skipped[:4], "little")
            total -= int.from_bytes(skipped[4:8], "little")
        total += 0 if packet.is_discard else max(0, count - skip)
        skip = max(0, skip - count)
        if total > max_samples:
            break
    return max(0, total - padding), padding


def _count_packet_samples(packet: Any, audio: Any) -> int | None:
    """Return how many samples the decoder makes of a packet, None if only decoding tells."""
    name, context = _codec_name(audio), audio.codec_context
    if name == "opus":
        return _count_opus_samples(bytes(memoryview(packet)[:2]))
    if name == "mp3":
        frame = parse_mpeg_frame(bytes(memoryview(packet)[:4]))
        return frame.num_samples if frame else None
    if name in FRAME_SAMPLES:
        return context.frame_size or FRAME_SAMPLES[name]
    if name.startswith("pcm_"):
        bits = int("".join(letter for letter in name if letter.isdigit()) or 8)  # a-law and mu-law have 8
        return packet.size // (bits // 8 * len(context.layout.channels))
    return _packet_duration(packet, audio)


def _packet_duration(packet: Any, audio: Any) -> int | None:
    """Return a packet's duration in samples, None if the container does not count in samples."""
    ticks = audio.time_base * audio.codec_context.sample_rate
    return packet.duration // ticks.denominator if packet.duration and ticks == 1 else None


def _count_opus_samples(start: bytes) -> int:
    if not start:
        return 0
    frames = {0: 1, 1: 2, 2: 2}.get(start[0] & 3) or (start[1] & 63 if len(start) > 1 else 0)
    return frames * OPUS_FRAMES[start[0] >> 3]
