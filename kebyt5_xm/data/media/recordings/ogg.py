"""Reads Ogg files: checks every page and finds the recordings, several if files were joined (chained).

libsndfile alone reads only the first recording of a chain and skips lost or damaged pages. Layout of a page: RFC
3533, section 6; of the first packets: RFC 7845 (Opus), the Vorbis I specification 4.2.1, RFC 9639, 10.1 (FLAC).
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from kebyt5_xm.data.media.byte_ranges import ByteRange, join_adjacent, open_ranges
from kebyt5_xm.data.media.recordings.containers import open_container
from kebyt5_xm.data.media.recordings.decoders import Sound, open_sound
from kebyt5_xm.data.media.recordings.tags import skip_tag
from kebyt5_xm.data.media.reference import MediaRefusal

BEGIN, END = 0x02, 0x04  # bits of a page's header type
NO_PACKET_ENDS = (1 << 64) - 1  # the position of a page on which no packet ends
CODECS = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"Speex   ": "Speex",
}
"""Codec by the first bytes of a stream. Streams that begin otherwise are no sound (video, for example)."""
MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    """The pages of one logical stream, and the state needed to check the next page."""

    codec: str | None
    pages: list[ByteRange] = field(default_factory=list)
    next_page: int = 0
    position: int = 0
    ended: bool = False


def find_ogg_sounds(stream: BinaryIO, start: int, end: int, max_seconds: float) -> list[Sound]:
    """Return the sounds of an Ogg file in order; raise `MediaRefusal` for a lost, damaged or cut page.

    Vorbis and Opus have the rate in their header, which for Opus is the rate before encoding.
    """
    return [_open_stream(stream, part, max_seconds) for part in _find_streams(stream, start, end)]


def _open_stream(stream: BinaryIO, part: _Stream, max_seconds: float) -> Sound:
    if part.codec == "Speex":
        raise MediaRefusal("found Speex, which is not supported; convert it: ffmpeg -i IN -ar 16000 OUT.wav")
    pages = join_adjacent(part.pages)

    def view(file: BinaryIO) -> BinaryIO:
        return open_ranges(file, pages)

    found = (
        open_container(view(stream), "ogg", max_seconds) if part.codec == "FLAC" else open_sound(view(stream))
    )
    return found.within(view)


def _find_streams(stream: BinaryIO, start: int, end: int) -> list[_Stream]:
    """Return the audio streams, one for each recording of the chain."""
    found: list[_Stream] = []
    streams: dict[int, _Stream] = {}
    beginning = False
    for at, length, page in _read_pages(stream, start, end):
        kind, number = page[5], int.from_bytes(page[14:18], "little")
        if kind & BEGIN:
            if not beginning:  # a new recording, or the first
                _check_ended(streams)
                streams = {}
            beginning = True
            body = page[27 + page[26] :]
            codec = next((name for magic, name in CODECS.items() if body.startswith(magic)), None)
            if number in streams:
                raise MediaRefusal("damaged: two streams with the same number in the Ogg file")
            streams[number] = _Stream(codec)
            if codec:
                if any(other.codec for n, other in streams.items() if n != number):
                    raise MediaRefusal("found several parallel streams of sound; extract the right one")
                found.append(streams[number])
        else:
            beginning = False
        if number not in streams or streams[number].ended:
            raise MediaRefusal("damaged: a page of the Ogg file belongs to no stream that has begun")
        _add_page(streams[number], (at, at + length), page)
    _check_ended(streams)
    if not found:
        raise MediaRefusal("found no sound in the Ogg file")
    return found


def _add_page(part: _Stream, span: ByteRange, page: bytes) -> None:
    sequence, position = int.from_bytes(page[18:22], "little"), int.from_bytes(page[6:14], "little")
    if part.pages and sequence != part.next_page:
        raise MediaRefusal(f"damaged: page {sequence} of the Ogg stream follows page {part.next_page - 1}")
    if part.codec and position != NO_PACKET_ENDS:
        if position < part.position:
            raise MediaRefusal("damaged: the pages of the Ogg stream go back in time")
        part.position = position
    part.pages.append(span)
    part.next_page = sequence + 1
    part.ended = bool(page[5] & END)


def _check_ended(streams: dict[int, _Stream]) -> None:
    if any(part.codec and not part.ended for part in streams.values()):
        raise MediaRefusal(
            "truncated: the last page of the Ogg stream is not marked as the last; write the file again"
        )


def _read_pages(stream: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield the offset, length and bytes of each page."""
    while position < end:
        stream.seek(position)
        header = stream.read(min(27, end - position))
        if header[:4] != b"OggS":
            behind = skip_tag(stream, position, end)
            if behind > position:
                position = behind
                continue
            cut = b"OggS".startswith(header[:4])
            raise MediaRefusal(
                "truncated: the last page of the Ogg stream is incomplete"
                if cut
                else f"damaged: no page of Ogg at byte {position}"
            )
        lengths = stream.read(header[26]) if len(header) == 27 else b""
        size = 27 + len(lengths) + sum(lengths)
        if len(header) < 27 or len(lengths) < header[26] or position + size > end:
            raise MediaRefusal("truncated: the last page of the Ogg stream is incomplete")
        page = header + lengths + stream.read(sum(lengths))
        if _checksum(page) != int.from_bytes(page[22:26], "little"):
            raise MediaRefusal(f"damaged: the checksum of the Ogg page at byte {position} is wrong")
        yield position, size, page
        position += size


def _checksum(page: bytes) -> int:
    """Return Ogg's checksum: zlib's polynomial without bit mirroring and inversions; its own field counts as 0."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(MIRRORED)
    value = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(value.to_bytes(4, "little").translate(MIRRORED), "big")
