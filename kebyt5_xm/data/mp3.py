"""The length of an MP3 stream, which libsndfile knows from a Xing or Info header; else it guesses, and cuts.

Speech synthesisers and recorders of streams often write no such header. Then the frames are counted here and
a header with their number is put in front, in memory. Layout of frames: ISO/IEC 11172-3, section 2.4.1.3, and
13818-3 for the lower rates.
"""

import io
from dataclasses import dataclass
from typing import BinaryIO

from kebyt5_xm.data.reference import Refused

# kbit/s by the bitrate index of layer III, for MPEG 1 (True) and for MPEG 2 and 2.5; index 0 is "free".
BITRATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by the rate index, for the two bits of the version: 0 is MPEG 2.5, 2 is MPEG 2, 3 is MPEG 1.
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}
# What may follow the last frame: tags of several makers.
TAGS = (b"TAG", b"APE", b"ID3", b"LYR")
MAX_TAG = 128  # bytes behind the announced end that are not worth a count: the size of the oldest tag


@dataclass(frozen=True)
class Frame:
    """What the four bytes in front of a frame say; `length` in bytes includes them."""

    length: int
    num_samples: int
    sample_rate: int
    info_at: int
    """Where a Xing or Info header stands in the first frame: behind the side information."""


def frame_at(header: bytes) -> Frame | None:
    """Read the four bytes in front of a frame of layer III, or return None if they are something else."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, bitrate_index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in RATES or bitrate_index in (0, 15) or rate_index == 3:
        return None
    first, mono = version == 3, header[3] >> 6 == 3
    num_samples = 1152 if first else 576
    sample_rate = RATES[version][rate_index]
    bitrate = 1000 * BITRATES[first][bitrate_index]
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(
        length=num_samples // 8 * bitrate // sample_rate + (header[2] >> 1 & 1),
        num_samples=num_samples,
        sample_rate=sample_rate,
        info_at=4 + side,
    )


def with_length(stream: BinaryIO, max_seconds: float) -> BinaryIO | None:
    """Return a stream whose length libsndfile knows, or None if `stream` does not start as an MP3.

    It is `stream` itself if that has a header with its length; else it is read from end to end. Raises
    `Refused` if it is damaged or longer than `max_seconds`.
    """
    start = _after_tag(stream)
    stream.seek(start)
    raw = stream.read(4)
    first = frame_at(raw)
    if first is None:
        return None
    raw += stream.read(first.length - 4)
    announced, end, has_header = _announced(raw[first.info_at :])
    size = stream.seek(0, io.SEEK_END)
    # Recordings that were joined end to end still announce the first one's length.
    if announced and (not end or size <= start + end + MAX_TAG):
        return stream
    start += first.length if has_header else 0
    max_frames = int(max_seconds * first.sample_rate / first.num_samples) + 2
    count = _count_frames(stream, start, max_frames)
    if announced and announced >= count:
        return stream
    header = bytearray(first.length)
    header[:4] = raw[:4]
    header[1] |= 1  # no checksum
    header[first.info_at : first.info_at + 12] = b"Xing" + (1).to_bytes(4, "big") + count.to_bytes(4, "big")
    stream.seek(start)
    return io.BytesIO(bytes(header) + stream.read())


def _announced(info: bytes) -> tuple[int, int, bool]:
    """Return the frames and bytes that a Xing or Info header announces (0: not said), and if it is one."""
    if info[:4] not in (b"Xing", b"Info"):
        return 0, 0, False
    numbers = [int.from_bytes(info[at : at + 4], "big") for at in (8, 12)]
    frames = numbers.pop(0) if info[7] & 1 else 0
    return frames, numbers.pop(0) if info[7] & 2 else 0, True


def _after_tag(stream: BinaryIO) -> int:
    """Return where the stream starts behind an ID3v2 tag (its length: 4 bytes of 7 bits; id3.org, 3.1)."""
    stream.seek(0)
    tag = stream.read(10)
    if tag[:3] != b"ID3" or len(tag) < 10:
        return 0
    length = 0
    for byte in tag[6:]:
        length = length << 7 | byte & 0x7F
    return 10 + length + (10 if tag[5] & 0x10 else 0)


def _count_frames(stream: BinaryIO, position: int, max_frames: int) -> int:
    stream.seek(position)
    count = 0
    while header := stream.read(4):
        frame = frame_at(header)
        if frame is None:
            if header[:3] in TAGS or not any(header):
                break
            raise Refused(f"damaged: no MP3 frame at byte {position}")
        if len(stream.read(frame.length - 4)) < frame.length - 4:
            raise Refused("truncated: the last MP3 frame is incomplete")
        position += frame.length
        count += 1
        if count > max_frames:
            raise Refused("it is longer than max_seconds; raise it or cut the recording into pieces")
    if not count:
        raise Refused("found no MP3 frames")
    return count
