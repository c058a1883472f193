"""Streams of frames without a container: MPEG audio (MP3), ADTS (AAC) and AMR.

The frames are found by their own headers, one behind the other, because a demuxer passes over what is no frame and
gives a half one as if it were whole; FFmpeg decodes them one by one. Joined recordings come apart where tags or
another Info frame stand between them, or where the rate or the number of channels changes.

Layouts: see `mp3` for MPEG audio; ISO/IEC 13818-7, 6.2 for ADTS; RFC 4867, 5.3 for AMR.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.media.recordings.ffmpeg import decode_packets
from kebyt5_xm.data.media.recordings.mp3 import Frame, Info, info_of, mpeg_frame
from kebyt5_xm.data.media.recordings.sound import Sound
from kebyt5_xm.data.media.recordings.tags import after_zeros, tag_at
from kebyt5_xm.data.media.reference import Refused

AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
# Bytes behind the first one of a frame, by the type in it.
AMR_NB = {**dict(enumerate((12, 13, 15, 17, 19, 20, 26, 31, 5))), 15: 0}
AMR_WB = {**dict(enumerate((17, 23, 32, 36, 40, 46, 50, 58, 60, 5))), 14: 0, 15: 0}
NO_INFO = {"mp3float": Info()}
"""What is dropped of a stream that does not say it."""


@dataclass
class _Run:
    """Frames of one encoder: where they begin, their lengths in bytes, and what came in front of them."""

    start: int
    frame: Frame
    info: Info
    lengths: list[int] = field(default_factory=list)
    num_samples: int = 0


def mpeg_sounds(stream: BinaryIO, start: int, end: int, max_seconds: float) -> list[Sound]:
    """Return the sounds of MPEG audio between two bytes of `stream`; raise `Refused` if a frame is not whole."""
    return _sounds(stream, start, end, max_seconds, mpeg_frame, "MP3")


def adts_sounds(stream: BinaryIO, start: int, end: int, max_seconds: float) -> list[Sound]:
    """As `mpeg_sounds`, for AAC in ADTS."""
    return _sounds(stream, start, end, max_seconds, _adts_frame, "AAC")


def amr_sounds(stream: BinaryIO, end: int, max_seconds: float) -> list[Sound]:
    """As `mpeg_sounds`, for a file of AMR, narrow or wide band."""
    stream.seek(0)
    wide = stream.read(9) == b"#!AMR-WB\n"
    return _sounds(stream, 9 if wide else 6, end, max_seconds, _amr_wide_frame if wide else _amr_frame, "AMR")


def is_adts(header: bytes) -> bool:
    """Say whether seven bytes begin a frame of AAC."""
    return _adts_frame(header) is not None


def _adts_frame(header: bytes) -> Frame | None:
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate_index, length = header[2] >> 2 & 15, int.from_bytes(header[3:6], "big") >> 5 & 0x1FFF
    if rate_index >= len(AAC_RATES) or length < 7:
        return None
    rate, channels = AAC_RATES[rate_index], (header[2] & 1) << 2 | header[3] >> 6
    return Frame(length, 1024 * ((header[6] & 3) + 1), rate, ("aac", rate, channels == 1))


def _amr_frame(header: bytes) -> Frame | None:
    kind = header[0] >> 3 & 15
    return Frame(1 + AMR_NB[kind], 160, 8_000, ("amrnb", 8_000, True)) if kind in AMR_NB else None


def _amr_wide_frame(header: bytes) -> Frame | None:
    kind = header[0] >> 3 & 15
    return Frame(1 + AMR_WB[kind], 320, 16_000, ("amrwb", 16_000, True)) if kind in AMR_WB else None


def _sounds(
    stream: BinaryIO,
    start: int,
    end: int,
    max_seconds: float,
    frame_of: Callable[[bytes], Frame | None],
    name: str,
) -> list[Sound]:
    runs: list[_Run] = []
    position, joined, seconds = start, True, 0.0
    stream.seek(start)
    while position < end:
        header = stream.read(min(32, end - position))
        frame = frame_of(header)
        if frame is None:
            position = _behind_tag(stream, position, end, header, name)
            stream.seek(position)
            joined = True
            continue
        if position + frame.length > end:
            raise Refused(f"truncated: the last {name} frame is incomplete")
        rest = stream.read(max(0, frame.length - len(header)))
        info = info_of(header + rest) if frame.stream[0] == "mp3float" else None
        if info or joined or frame.stream != runs[-1].frame.stream:
            _check_whole(runs, position, name)
            first = position + (frame.length if info else 0)
            run = _Run(first, frame, info or NO_INFO.get(frame.stream[0], Info(0)))
            runs.append(run)
            seconds -= (run.info.front + run.info.behind) / frame.sample_rate
            joined = False
        if not info:
            runs[-1].lengths.append(frame.length)
            runs[-1].num_samples += frame.num_samples
            seconds += frame.num_samples / frame.sample_rate
            if seconds > max_seconds:
                raise Refused("it is longer than max_seconds; raise it or cut the recording into pieces")
        position += frame.length
        if len(header) > frame.length:
            stream.seek(position)
    _check_whole(runs, end, name)
    runs = [run for run in runs if run.lengths]
    if not runs:
        raise Refused(f"found no {name} frames")
    return [_sound(stream, run) for run in runs]


def _behind_tag(stream: BinaryIO, position: int, end: int, header: bytes, name: str) -> int:
    """Return where a tag, or zeros up to the end, are over; raise `Refused` for all else that is no frame."""
    if length := tag_at(header):
        return position + length
    if not any(header) and after_zeros(stream, position) >= end:
        return end
    if len(header) < 4:
        raise Refused(f"truncated: the last {name} frame is incomplete")
    raise Refused(f"damaged: no {name} frame at byte {position}")


def _check_whole(runs: list[_Run], end: int, name: str) -> None:
    """Refuse the last run if it was cut between two frames, as far as its Info frame tells."""
    if not runs:
        return
    run = runs[-1]
    announced, found = run.info.frames, len(run.lengths)
    # The count of frames alone is often one too many: some encoders count the Info frame.
    if run.info.size > end - run.start + run.frame.length and announced > found:
        raise Refused(f"truncated: {announced} {name} frames announced, {found} found")
    if not run.info.size and announced > found + 1:
        raise Refused(f"truncated: {announced} {name} frames announced, {found} found")


def _sound(stream: BinaryIO, run: _Run) -> Sound:
    codec, rate, _ = run.frame.stream

    def packets() -> Iterator[bytes]:
        stream.seek(run.start)
        for length in run.lengths:
            yield stream.read(length)

    def blocks() -> Iterator[NDArray[np.float32]]:
        front = run.info.front
        for block in decode_packets(codec, packets(), rate):
            yield block[front:]
            front = max(0, front - len(block))

    behind = min(run.info.behind, max(0, run.num_samples - run.info.front))
    return Sound(run.num_samples - run.info.front - behind, rate, blocks, padding=behind)
