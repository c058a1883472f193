"""Finds tags around the sound: ID3v2 and APEv2 in front (also several), and those, ID3v1 and Lyrics3 behind.

Layouts: id3.org (ID3v2.4 structure, 3.1 and 3.4; Lyrics3 v2), wiki.hydrogenaud.io (APEv2). Files that
state their own length (WAV, MP4) need no search for tags behind the sound.
"""

import io
from typing import BinaryIO

ID3V1, ID3V1_ENHANCED = 128, 227  # bytes
LYRICS_MAX = (
    5100 + 11 + 9
)  # bytes of the longest Lyrics3 v1 tag with both marks; it does not state its length


def tag_length(header: bytes) -> int:
    """Return the length in bytes of the tag that begins with `header` (32 bytes suffice), 0 without a tag."""
    if header[:3] == b"ID3" and len(header) >= 10 and max(header[6:10]) < 0x80 and header[3] < 0xFF:
        return 10 + _decode_seven_bits(header[6:10]) + (10 if header[5] & 0x10 else 0)
    if header[:8] == b"APETAGEX" and len(header) >= 32:
        return 32 + int.from_bytes(header[12:16], "little")
    if header[:4] == b"TAG+":
        return ID3V1_ENHANCED
    if header[:3] == b"TAG":
        return ID3V1
    return 0


def find_sound_start(stream: BinaryIO) -> int:
    """Return the offset behind the leading tags and their zero padding."""
    position = 0
    while True:
        stream.seek(position)
        header = stream.read(32)
        length = tag_length(header)
        if header[:3] == b"TAG" or not length:
            return position
        position = skip_zeros(stream, position + length)


def skip_zeros(stream: BinaryIO, position: int) -> int:
    """Return the offset of the first nonzero byte from `position` on, or the file size."""
    stream.seek(position)
    while block := stream.read(1 << 16):
        if rest := block.lstrip(b"\0"):
            return position + len(block) - len(rest)
        position += len(block)
    return position


def skip_tag(stream: BinaryIO, position: int, end: int) -> int:
    """Return the end of a tag at `position`, `end` if only zeros follow, else `position`.

    Zeros that pad a last block are neither tag nor sound.
    """
    stream.seek(position)
    header = stream.read(min(32, end - position))
    if length := tag_length(header):
        return position + length
    return end if not any(header) and skip_zeros(stream, position) >= end else position


def find_sound_end(stream: BinaryIO) -> int:
    """Return the offset of the trailing tags, or the file size without any."""
    end = stream.seek(0, io.SEEK_END)
    while length := _trailing_tag_length(stream, end):
        end -= length
    return end


def _trailing_tag_length(stream: BinaryIO, end: int) -> int:
    start = max(0, end - LYRICS_MAX)
    stream.seek(start)
    tail = stream.read(end - start)
    if len(tail) >= ID3V1 and tail[-ID3V1:][:3] == b"TAG":
        enhanced = tail[-ID3V1 - ID3V1_ENHANCED : -ID3V1][:4] == b"TAG+"
        return ID3V1 + (ID3V1_ENHANCED if enhanced else 0)
    length = 0
    if tail[-32:-24] == b"APETAGEX":
        has_header = tail[-9] & 0x80  # bit 31 of the flags
        length = int.from_bytes(tail[-20:-16], "little") + (32 if has_header else 0)
    elif tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        length = int(tail[-15:-9]) + 15
    elif tail[-9:] == b"LYRICSEND":
        length = len(tail) - tail.rfind(b"LYRICSBEGIN") if b"LYRICSBEGIN" in tail else 0
    elif tail[-10:-7] == b"3DI":
        length = 20 + _decode_seven_bits(tail[-4:])
    return length if length <= end else 0


def _decode_seven_bits(number: bytes) -> int:
    value = 0
    for byte in number:
        value = value << 7 | byte & 0x7F
    return value
