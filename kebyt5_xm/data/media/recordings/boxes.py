"""Checks that MP4, QuickTime, 3GP, Matroska and WebM files are complete and undamaged.

FFmpeg silently reads a truncated file to its end and skips damaged parts.
Layouts: ISO/IEC 14496-12, section 4.2; RFC 8794 (EBML), sections 5 and 6, and RFC 9559 (Matroska).
"""

from typing import BinaryIO

from kebyt5_xm.data.media.recordings.tags import skip_zeros, tag_length
from kebyt5_xm.data.media.reference import MediaRefusal

MOVIE_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""The boxes with which such a file may begin."""
NESTED_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
EBML = b"\x1a\x45\xdf\xa3"
SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
# Elements allowed in a segment and in a cluster; any other element means damage.
IN_SEGMENT = {
    CLUSTER,
    0x114D9B74,  # SeekHead
    0x1549A966,  # Info
    0x1654AE6B,  # Tracks
    0x1C53BB6B,  # Cues
    0x1941A469,  # Attachments
    0x1043A770,  # Chapters
    0x1254C367,  # Tags
    0xEC,  # Void
    0xBF,  # CRC-32
}
IN_CLUSTER = {
    0xA3,  # SimpleBlock
    0xA0,  # BlockGroup
    0xE7,  # Timestamp
    0xA7,  # Position
    0xAB,  # PrevSize
    0x5854,  # SilentTracks
    0xAF,  # EncryptedBlock
    0xEC,
    0xBF,
}


def check_movie(stream: BinaryIO, end: int) -> None:
    """Raise `MediaRefusal` if a box of an MP4 passes the end of the file, or the moov box is missing."""
    names = _check_boxes(stream, 0, end, end)
    if names.count(b"moov") > 1:
        raise MediaRefusal("found two recordings in one file; cut it at the second ftyp box")
    if b"moov" not in names:
        raise MediaRefusal(
            "truncated: found no moov box, which recorders write last; repair the file or record it again"
        )


def _check_boxes(stream: BinaryIO, position: int, end: int, size: int) -> list[bytes]:
    names = []
    while position < end:
        stream.seek(position)
        header = stream.read(16)
        length, name, content = int.from_bytes(header[:4], "big"), header[4:8], 8
        if length == 1:
            length, content = int.from_bytes(header[8:16], "big"), 16
        if length == 0 and name != b"mdat":
            if skip_zeros(stream, position) >= end:
                break
            raise MediaRefusal(f"damaged: no box at byte {position}")
        length = length or end - position
        if names and (tag := tag_length(header + stream.read(16))):
            length = tag
        elif length < content or not name.decode("latin-1").isprintable():
            raise MediaRefusal(f"damaged: no box at byte {position}")
        if position + length > end:
            raise MediaRefusal(
                f"truncated: the box {name.decode('latin-1')} announces {length} bytes, {end - position} found"
            )
        if name in NESTED_BOXES:
            _check_boxes(stream, position + content, position + length, size)
        elif name in (b"stsz", b"stz2"):
            stream.seek(position + content + 8)
            # FFmpeg allocates memory for each packet. A packet has at least one byte.
            if int.from_bytes(stream.read(4), "big") > size:
                raise MediaRefusal("damaged: it announces more packets than the file has bytes")
        names.append(name)
        position += length
    return names


def check_matroska(stream: BinaryIO, end: int) -> None:
    """Raise `MediaRefusal` if an element of a Matroska file passes its end, or is not allowed where it stands."""
    position, clusters = 0, 0
    # Open segment and cluster: (end, allowed elements, is the length unknown).
    inside: list[tuple[int, set[int], bool]] = []
    while position < end:
        while inside and position >= inside[-1][0]:
            inside.pop()
        stream.seek(position)
        header = stream.read(12)
        number, width = _element_id(header), _width(header)
        size_width = _width(header[width:]) if width else 0
        if not width or not size_width or len(header) < width + size_width:
            if end - position < 12:
                raise MediaRefusal("truncated: its last element is incomplete")
            if skip_zeros(stream, position) >= end:
                break
            raise MediaRefusal(f"damaged: no element at byte {position}")
        content = position + width + size_width
        value = int.from_bytes(header[width : width + size_width], "big") & ((1 << 7 * size_width) - 1)
        unknown = value == (1 << 7 * size_width) - 1
        if number == int.from_bytes(EBML, "big") and position:
            raise MediaRefusal(f"found a second recording at byte {position}; cut the file there")
        # An element of unknown length ends before the first element that it cannot contain.
        while len(inside) > 1 and inside[-1][2] and number not in inside[-1][1]:
            inside.pop()
        if inside and number not in inside[-1][1]:
            raise MediaRefusal(f"damaged: no element at byte {position}")
        if not inside and number not in (int.from_bytes(EBML, "big"), SEGMENT, 0xEC):
            raise MediaRefusal(f"damaged: no element at byte {position}")
        limit = inside[-1][0] if inside else end
        stop = limit if unknown else content + value
        if stop > end:
            raise MediaRefusal(f"truncated: an element announces {value} bytes, {end - content} found")
        if stop > limit or (unknown and number not in (SEGMENT, CLUSTER)):
            raise MediaRefusal(f"damaged: the element at byte {position} does not fit into its parent")
        if number in (SEGMENT, CLUSTER):
            clusters += number == CLUSTER
            inside.append((stop, IN_SEGMENT if number == SEGMENT else IN_CLUSTER, unknown))
            position = content
        else:
            position = stop
    if not clusters:
        raise MediaRefusal("truncated: found no cluster, which would hold the sound")


def _width(raw: bytes) -> int:
    """Return the length in bytes of the number at the start of `raw`, 0 if it is invalid."""
    return 9 - raw[0].bit_length() if raw and raw[0] else 0


def _element_id(raw: bytes) -> int:
    return int.from_bytes(raw[: _width(raw)], "big")
