"""What a frame of MPEG audio says of itself, and what an encoder of MP3 writes in front of the first one.

Layout of frames: ISO/IEC 11172-3, section 2.4.1.3, and 13818-3 for the lower rates. Of the Info frame (also named
Xing, or VBRI): gabriel.mp3-tech.org, "Mp3 Info Tag rev 1". Its counts are not believed where frames can be counted.
"""

from dataclasses import dataclass
from functools import lru_cache

# kbit/s by the bitrate index, for layers II and III of MPEG 1 and for both in MPEG 2 and 2.5; index 0 is "free".
BITRATES = {
    "II": (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    "III": (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "low": (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Hz by the rate index, for the two bits of the version: 0 is MPEG 2.5, 2 is MPEG 2, 3 is MPEG 1.
RATES = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}
LAYERS = {1: "III", 2: "II"}  # by the two bits of the layer; layer I is read nowhere any more
DECODER_DELAY = 529  # samples that every decoder of layer III gives first (the page of the Info tag)
ENCODERS = (b"LAME", b"Lavf", b"Lavc")  # those that write how much they added in front and behind


@dataclass(frozen=True)
class Frame:
    """What the first bytes of a frame say. `length` in bytes includes them; `stream` is what must not change."""

    length: int
    num_samples: int
    sample_rate: int
    stream: tuple[str, int, bool]
    """The codec by FFmpeg's name, the rate in Hz, and whether it has one channel."""


@dataclass(frozen=True)
class Info:
    """What stands in front of a recording: samples to drop in `front` and `behind`, counts (0: not said)."""

    front: int = DECODER_DELAY
    behind: int = 0
    frames: int = 0
    size: int = 0


def mpeg_frame(header: bytes) -> Frame | None:
    """Read the first four bytes of a frame of layer II or III; None if they are something else."""
    return _mpeg_frame(header[:4])


@lru_cache(maxsize=1 << 12)  # a recording has few different ones, and many frames
def _mpeg_frame(header: bytes) -> Frame | None:
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


def info_of(raw: bytes) -> Info | None:
    """Return what the frame `raw` says of the recording, or None if it is one of sound."""
    if not any(name in raw[:40] for name in (b"Xing", b"Info", b"VBRI")):
        return None
    for side in (9, 17, 32):  # bytes of side information, by version and channels
        if raw[4 + side : 8 + side] in (b"Xing", b"Info"):
            return _info(raw[4 + side :])
    return Info() if raw[36:40] == b"VBRI" else None


def _info(raw: bytes) -> Info:
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
