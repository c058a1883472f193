"""Reads streams of frames without a container: MPEG audio (MP3), ADTS (AAC) and AMR.

We parse the frame headers ourselves and let FFmpeg decode frame by frame, because a demuxer skips damaged bytes and
returns an incomplete frame as if it were complete. Joined recordings are split at tags, at another Info frame, and
where the rate or the number of channels changes. Frames are counted; the counts in an Info frame only reveal
truncation.

Layouts: ISO/IEC 11172-3, section 2.4.1.3, and 13818-3 for the lower rates (MPEG audio); gabriel.mp3-tech.org, "Mp3
Info Tag rev 1" (the Info frame, also named Xing, or VBRI); ISO/IEC 13818-7, 6.2 (ADTS); RFC 4867, 5.3 (AMR).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.bad_sample import LimitRefusal
from kebyt5_xm.data.media.recordings.decoders import Sound, decode_packets, drop
from kebyt5_xm.data.media.recordings.tags import skip_tag
from kebyt5_xm.data.media.reference import MediaRefusal

# kbit/s by bitrate index, for layers II and III of MPEG 1, and for both in MPEG 2 and 2.5; index 0 is "free".
BITRATES = {
    "II": (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "III": (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "low": (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by rate index, for the version bits: 0 is MPEG 2.5, 2 is MPEG 2, 3 is MPEG 1.
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}
LAYERS = {1: "III", 2: "II"}  # by the layer bits; layer I is obsolete
MAX_RESERVOIR = 511  # bytes of earlier frames that a layer III frame may use: main_data_begin has 9 bits
WARM_UP = 3  # earlier frames that filter bank and overlap reach into: fewer than two; our own margin
DECODER_DELAY = 529  # samples that every layer III decoder adds in front (page on the Info tag)
ENCODERS = (b"LAME", b"Lavf", b"Lavc")  # encoders that write how many samples they added in front and behind
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
# Bytes that follow the first byte of a frame, by the type in that byte.
AMR_NB = {**dict(enumerate((12, 13, 15, 17, 19, 20, 26, 31, 5))), 15: 0}
AMR_WB = {**dict(enumerate((17, 23, 32, 36, 40, 46, 50, 58, 60, 5))), 14: 0, 15: 0}


@dataclass(frozen=True)
class Frame:
    """The header of a frame. `length` in bytes includes the header; `stream` is constant in a recording."""

    length: int
    num_samples: int
    sample_rate: int
    stream: tuple[str, int, bool]
    """FFmpeg's codec name, the rate in Hz, and whether the sound is mono."""


@dataclass(frozen=True)
class Info:
    """An Info frame: samples to drop in `front` and `behind`, number of frames and bytes (0 if unknown)."""

    front: int = DECODER_DELAY
    behind: int = 0
    frames: int = 0
    size: int = 0


def parse_mpeg_frame(header: bytes) -> Frame | None:
    """Parse the first four bytes of a layer II or III frame; return None for anything else."""
    return _parse_mpeg_frame(header[:4])


@lru_cache(maxsize=1 << 12)  # a recording has many frames but few different headers
def _parse_mpeg_frame(header: bytes) -> Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, LAYERS.get(header[1] >> 1 & 3)
    bitrate_index, rate_index = header[2] >> 4, header[2] >> 2 & 3
    if version not in RATES or layer is None or bitrate_index in (0, 15) or rate_index == 3:
        return None
    first, mono = version == 3, header[3] >> 6 == 3
    num_samples = 1152 if first or layer == "II" else 576
    sample_rate = RATES[version][rate_index]
    bitrate = 1000 * BITRATES[layer if first else "low"][bitrate_index]
    return Frame(
        length=num_samples // 8 * bitrate // sample_rate + (header[2] >> 1 & 1),
        num_samples=num_samples,
        sample_rate=sample_rate,
        stream=("mp3float" if layer == "III" else "mp2float", sample_rate, mono),
    )


def parse_info_frame(raw: bytes) -> Info | None:
    """Return the content of an Info frame, or None if the frame `raw` holds sound."""
    if not any(name in raw[:40] for name in (b"Xing", b"Info", b"VBRI")):
        return None
    for side in (9, 17, 32):  # bytes of side information, by version and channels
        if raw[4 + side : 8 + side] in (b"Xing", b"Info"):
            return _parse_info(raw[4 + side :])
    return Info() if raw[36:40] == b"VBRI" else None


def _parse_info(raw: bytes) -> Info:
    flags, at, numbers = raw[7] if len(raw) > 7 else 0, 8, []
    for bit, length in ((1, 4), (2, 4), (4, 100), (8, 4)):  # frames, bytes, table of contents, quality
        numbers.append(int.from_bytes(raw[at : at + 4], "big") if flags & bit else 0)
        at += length if flags & bit else 0
    front, behind = DECODER_DELAY, 0
    if raw[at : at + 4] in ENCODERS and len(raw) >= at + 24:
        delays = int.from_bytes(raw[at + 21 : at + 24], "big")
        front += delays >> 12
        behind = max(0, (delays & 0xFFF) - DECODER_DELAY)
    return Info(front, behind, frames=numbers[0], size=numbers[1])


@dataclass
class _Run:
    """Consecutive frames of one recording: their start and lengths in bytes, and the Info frame before them."""

    start: int
    frame: Frame
    info: Info
    lengths: list[int] = field(default_factory=list)
    num_samples: int = 0


def find_mpeg_sounds(stream: BinaryIO, start: int, end: int, max_seconds: float) -> list[Sound]:
    """Return the sounds of MPEG audio in a byte range of `stream`; raise `MediaRefusal` for an incomplete frame."""
    return _find_sounds(stream, start, end, max_seconds, parse_mpeg_frame, "MP3")


def find_adts_sounds(stream: BinaryIO, start: int, end: int, max_seconds: float) -> list[Sound]:
    """Like `find_mpeg_sounds`, for AAC in ADTS."""
    return _find_sounds(stream, start, end, max_seconds, _parse_adts_frame, "AAC")


def find_amr_sounds(stream: BinaryIO, end: int, max_seconds: float) -> list[Sound]:
    """Like `find_mpeg_sounds`, for an AMR file, narrowband or wideband."""
    stream.seek(0)
    wide = stream.read(9) == b"#!AMR-WB\n"
    return _find_sounds(
        stream, 9 if wide else 6, end, max_seconds, _parse_amr_wide_frame if wide else _parse_amr_frame, "AMR"
    )


def is_adts(header: bytes) -> bool:
    """Return whether seven bytes begin an AAC frame."""
    return _parse_adts_frame(header) is not None


def _parse_adts_frame(header: bytes) -> Frame | None:
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate_index, length = header[2] >> 2 & 15, int.from_bytes(header[3:6], "big") >> 5 & 0x1FFF
    if rate_index >= len(AAC_RATES) or length < 7:
        return None
    rate, channels = AAC_RATES[rate_index], (header[2] & 1) << 2 | header[3] >> 6
    return Frame(length, 1024 * ((header[6] & 3) + 1), rate, ("aac", rate, channels == 1))


def _parse_amr_frame(header: bytes) -> Frame | None:
    kind = header[0] >> 3 & 15
    return Frame(1 + AMR_NB[kind], 160, 8_000, ("amrnb", 8_000, True)) if kind in AMR_NB else None


def _parse_amr_wide_frame(header: bytes) -> Frame | None:
    kind = header[0] >> 3 & 15
    return Frame(1 + AMR_WB[kind], 320, 16_000, ("amrwb", 16_000, True)) if kind in AMR_WB else None


def _find_sounds(
    stream: BinaryIO,
    start: int,
    end: int,
    max_seconds: float,
    parse_frame: Callable[[bytes], Frame | None],
    name: str,
) -> list[Sound]:
    runs: list[_Run] = []
    position, joined, seconds = start, True, 0.0
    stream.seek(start)
    while position < end:
        header = stream.read(min(32, end - position))
        frame = parse_frame(header)
        if frame is None:
            behind = skip_tag(stream, position, end)
            if behind == position:
                cut = len(header) < 4
                raise MediaRefusal(
                    f"truncated: the last {name} frame is incomplete"
                    if cut
                    else f"damaged: no {name} frame at byte {position}"
                )
            position = behind
            stream.seek(position)
            joined = True
            continue
        if position + frame.length > end:
            raise MediaRefusal(f"truncated: the last {name} frame is incomplete")
        rest = stream.read(max(0, frame.length - len(header)))
        info = parse_info_frame(header + rest) if frame.stream[0] == "mp3float" else None
        if info or joined or frame.stream != runs[-1].frame.stream:
            _check_whole(runs, position, name)
            first = position + (frame.length if info else 0)
            run = _Run(first, frame, info or Info(DECODER_DELAY if frame.stream[0] == "mp3float" else 0))
            runs.append(run)
            seconds -= (run.info.front + run.info.behind) / frame.sample_rate
            joined = False
        if not info:
            runs[-1].lengths.append(frame.length)
            runs[-1].num_samples += frame.num_samples
            seconds += frame.num_samples / frame.sample_rate
            if seconds > max_seconds:
                raise LimitRefusal(
                    f"found more than {max_seconds:g} seconds, expected at most {max_seconds:g}; raise max_seconds "
                    "or cut the recording into pieces"
                )
        position += frame.length
        if len(header) > frame.length:
            stream.seek(position)
    _check_whole(runs, end, name)
    runs = [run for run in runs if run.lengths]
    if not runs:
        raise MediaRefusal(f"found no {name} frames")
    return [_to_sound(run) for run in runs]


def _check_whole(runs: list[_Run], end: int, name: str) -> None:
    """Refuse the last run if its Info frame shows that it was cut between two frames."""
    if not runs:
        return
    run = runs[-1]
    announced, found = run.info.frames, len(run.lengths)
    # The number of frames alone is often one too high: some encoders count the Info frame.
    if run.info.size > end - run.start + run.frame.length and announced > found:
        raise MediaRefusal(f"truncated: {announced} {name} frames announced, {found} found")
    if not run.info.size and announced > found + 1:
        raise MediaRefusal(f"truncated: {announced} {name} frames announced, {found} found")


def _to_sound(run: _Run) -> Sound:
    codec, rate, _ = run.frame.stream
    first_byte, frame, front = run.start, run.frame, run.info.front
    # Where each frame begins, and the last one ends, from `first_byte` on.
    places = np.cumsum([0, *run.lengths], dtype=np.int64)

    def packets(stream: BinaryIO, first: int) -> Iterator[bytes]:
        stream.seek(first_byte + int(places[first]))
        for number in range(first, len(places) - 1):
            yield stream.read(int(places[number + 1] - places[number]))

    def blocks(stream: BinaryIO, start: int) -> Iterator[NDArray[np.float32]]:
        first = _entry(frame, places, (start + front) // frame.num_samples) if start else 0
        found = decode_packets(codec, packets(stream, first), rate)
        yield from drop(found, start + front - first * frame.num_samples)

    behind = min(run.info.behind, max(0, run.num_samples - front))
    return Sound(run.num_samples - front - behind, rate, blocks, padding=behind)


def _entry(frame: Frame, places: NDArray[np.int64], wanted: int) -> int:
    """Return the frame at which decoding must begin so that frame `wanted` is the same to the bit.

    Layer II needs the frames before it for its filters; layer III also takes bytes of earlier frames, as many as they
    have room for. AAC and AMR carry state without end, so they are decoded from their start.
    """
    codec, rate, is_mono = frame.stream
    if codec not in ("mp3float", "mp2float"):
        return 0
    entry = max(0, wanted - WARM_UP)
    if codec == "mp3float":
        side = (17 if is_mono else 32) if rate >= min(RATES[3]) else (9 if is_mono else 17)
        room, overhead = 0, 4 + 2 + side  # bytes of header, checksum and side information
        while entry and room < MAX_RESERVOIR:
            entry -= 1
            room += max(0, int(places[entry + 1] - places[entry]) - overhead)
    return entry
