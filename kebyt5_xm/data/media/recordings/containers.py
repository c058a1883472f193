"""Sound in a container that FFmpeg takes apart: MP4 and its kin, Matroska and WebM, FLAC.

The number of samples comes from the packets, before anything is decoded: from their durations where the container
counts in samples, else from what the codec puts into a packet. Where neither tells (Vorbis and FLAC in Matroska),
the sound is decoded once to be counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.recordings.decoders import STRICT, Sound, decode, import_pyav
from kebyt5_xm.data.media.recordings.frames import parse_mpeg_frame
from kebyt5_xm.data.media.reference import MediaRefusal

Format = Literal["mov", "matroska", "flac", "ogg"]
"""FFmpeg's names of demuxers. One is always named: some of the others would open further files, or URLs."""

FRAME_SAMPLES = {"aac": 1024, "amr_nb": 160, "amr_wb": 320}
"""Samples in every packet of a codec, where FFmpeg does not say another number of the stream at hand."""
CODECS = {*FRAME_SAMPLES, "mp3", "opus", "vorbis", "flac", "alac"}  # and pcm_*
# Samples at 48 kHz in a frame of Opus, by the upper five bits of a packet (RFC 6716, table 2): SILK, hybrid, CELT.
OPUS_FRAMES = [480, 960, 1920, 2880] * 3 + [480, 960] * 2 + [120, 240, 480, 960] * 4


def open_container(stream: BinaryIO, format: Format, max_seconds: float) -> Sound:
    """Return the one sound of `stream`; raise `MediaRefusal` if there is none, or several, or of a codec not read."""
    with _open_audio_stream(stream, format) as (container, audio):
        rate = audio.codec_context.sample_rate
        max_samples = int(max_seconds * rate) + 1
        num_samples, padding = _count_samples(container, audio, max_samples)
    if num_samples is None:
        num_samples = 0
        for block in _decode_blocks(stream, format, rate):
            num_samples += len(block)
            if num_samples > max_samples:
                break
    return Sound(num_samples, rate, lambda: _decode_blocks(stream, format, rate), padding)


def open_flac(stream: BinaryIO, max_seconds: float) -> Sound:
    """Return the sound of a FLAC file: as long as it says (RFC 9639, 8.2), or counted if it does not.

    Decoding tells whether that is so.
    """
    stream.seek(0)
    start = stream.read(26)
    numbers = int.from_bytes(start[18:26], "big")  # rate: 20 bits, channels: 3, bits: 5, samples: 36
    rate, num_samples = numbers >> 44, numbers & (1 << 36) - 1
    if start[4:5] not in (b"\0", b"\x80") or not num_samples:
        return open_container(stream, "flac", max_seconds)
    return Sound(num_samples, rate, lambda: _decode_blocks(stream, "flac", rate))


def _decode_blocks(stream: BinaryIO, format: Format, rate: int) -> Iterator[NDArray[np.float32]]:
    with _open_audio_stream(stream, format) as (container, audio):
        for packet in _read_packets(container, audio):
            yield from decode(audio.codec_context, packet, rate)


@contextmanager
def _open_audio_stream(stream: BinaryIO, format: Format) -> Iterator[tuple[Any, Any]]:
    av = import_pyav()
    stream.seek(0)
    try:
        # Tags are no sound: one in cp949 or Latin-1 must not refuse it.
        container = av.open(stream, format=format, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise MediaRefusal(f"found no readable recording ({error.strerror})") from None
    with container:
        found = container.streams.audio
        if not found:
            raise MediaRefusal("found no sound in it")
        if len(found) > 1:
            raise MediaRefusal(
                f"found {len(found)} streams of sound, expected one; write the one that is meant: "
                "ffmpeg -i IN -map 0:a:0 OUT.flac"
            )
        name = _codec_name(found[0])
        if name not in CODECS and not name.startswith("pcm_"):
            raise MediaRefusal(f"found sound as {name}, which is not read; convert it: ffmpeg -i IN OUT.flac")
        found[0].codec_context.thread_count = 1
        found[0].codec_context.options = dict(STRICT)
        yield container, found[0]


def _codec_name(audio: Any) -> str:
    return str(audio.codec_context.codec.canonical_name)


def _read_packets(container: Any, audio: Any) -> Iterator[Any]:
    """Yield the packets of `audio`; the last one is empty, for what the decoder still holds."""
    try:
        for packet in container.demux(audio):
            if packet.is_corrupt:
                raise MediaRefusal("truncated: a packet of sound is incomplete")
            yield packet
    except import_pyav().error.FFmpegError as error:
        raise MediaRefusal(f"damaged: its packets cannot be read ({error.strerror})") from None


def _count_samples(container: Any, audio: Any, max_samples: int) -> tuple[int | None, int]:
    """Return the number of samples, None if only decoding tells, and how many the decoder gives beyond them."""
    total = padding = skip = 0
    for packet in _read_packets(container, audio):
        if not packet.size:
            continue
        held = _count_packet_samples(packet, audio)
        if held is None:
            return None, 0
        # The last packet's duration leaves out what fills its frame up, as an MP4 says it.
        said = _packet_duration(packet, audio)
        padding = held - said if said is not None and 0 < said < held else 0
        if packet.has_sidedata("skip_samples"):
            skipped = bytes(packet.get_sidedata("skip_samples"))  # 4 bytes for the start, 4 for the end
            skip += int.from_bytes(skipped[:4], "little")
            total -= int.from_bytes(skipped[4:8], "little")
        total += 0 if packet.is_discard else max(0, held - skip)
        skip = max(0, skip - held)
        if total > max_samples:
            break
    return max(0, total - padding), padding


def _count_packet_samples(packet: Any, audio: Any) -> int | None:
    """Return how many samples the decoder makes of a packet, None if it has to be tried."""
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
    """Return a packet's duration in samples, None if the container does not count in them."""
    ticks = audio.time_base * audio.codec_context.sample_rate
    return packet.duration // ticks.denominator if packet.duration and ticks == 1 else None


def _count_opus_samples(start: bytes) -> int:
    if not start:
        return 0
    frames = {0: 1, 1: 2, 2: 2}.get(start[0] & 3) or (start[1] & 63 if len(start) > 1 else 0)
    return frames * OPUS_FRAMES[start[0] >> 3]
