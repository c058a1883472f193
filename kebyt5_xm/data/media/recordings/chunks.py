"""Finds the samples in chunked files: WAV (RIFF, RIFX, RF64, BW64, W64), AIFF, AIFF-C, CAF; and AU.

Each chunk states its length, which reveals files that were cut, joined or left unfinished. Only chunks may follow the
samples: otherwise the length is wrong and samples would be lost. Layouts: Microsoft, "Multiple
Channel Audio Data and WAVE Files"; EBU Tech 3306 (RF64); Apple, "Audio Interchange File Format" and "Core Audio
Format Specification"; Sony, "Wave64"; Sun, audio(4).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from kebyt5_xm.data.media.recordings.tags import skip_zeros, tag_length
from kebyt5_xm.data.media.reference import MediaRefusal

# Writers that cannot seek back leave a length near 2^31 or 2^32 in a WAV. It means "until the end".
UNKNOWN_LENGTH = 0x7FFFF000
UNKNOWN_KINDS = (b"RIFF", b"RIFX", b"riff", b"caff")  # in W64 and CAF it is near 2^63, or -1
MPEG_FORMATS = (0x50, 0x55)  # WAV format tags of MPEG audio, layers I/II and III
# WAV format tags with a fixed number of bytes per sample (PCM, float, a-law, mu-law, by GUID).
PLAIN_FORMATS = (1, 3, 6, 7, 0xFFFE)
AIFF_PLAIN = (b"", b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64")
W64_TAIL = {
    b"riff": bytes.fromhex("2e91cf11a5d628db04c10000"),
    b"data": bytes.fromhex("f3acd3118cd100c04f8edb8a"),
}


@dataclass(frozen=True)
class Chunks:
    """The chunk layout of a file family. Lengths in bytes; `first` is the offset of the first chunk."""

    samples: bytes
    order: Literal["little", "big"]
    name: int = 4
    length: int = 4
    first: int = 12
    align: int = 2
    inclusive: bool = False


WAV, WAV_BIG = Chunks(b"data", "little"), Chunks(b"data", "big")
AIFF = Chunks(b"SSND", "big")
CAF = Chunks(b"data", "big", length=8, first=8, align=1)
W64 = Chunks(b"data" + W64_TAIL[b"data"], "little", name=16, length=8, first=40, align=8, inclusive=True)
KNOWN = set(
    b"data fmt fact LIST bext cue JUNK junk PEAK id3 ID3 cart smpl inst iXML axml chna _PMX DISP FLLR PAD plst umid "
    b"afsp minf elm1 regn SSND COMM MARK COMT ANNO AUTH NAME (c) APPL CHAN INST FVER SAUR desc pakt kuki chan mark "
    b"info strg uuid free midi ovvw peak wavl slnt ds64 r64m".split()
)
"""Chunk names in use, without the spaces that pad them to four letters."""


@dataclass(frozen=True)
class Samples:
    """The position of the samples in a file, and corrections to its header for libsndfile.

    `mpeg`: the samples are MPEG audio frames. `head`: a header that replaces the file's own; empty to keep it.
    `announced`: samples per channel that the file announces, 0 if unknown. `per_block`: samples in a block of its
    codec. `stored`: samples per channel computed from the bytes, 0 if unknown.
    `tail`: whether libsndfile may see the bytes behind the samples.
    """

    start: int
    end: int
    mpeg: bool = False
    head: bytes = b""
    announced: int = 0
    per_block: int = 1
    stored: int = 0
    tail: bool = True


def find_samples(stream: BinaryIO, start: int, end: int) -> Samples | None:
    """Return the samples' position, or None for another kind of file; raise `MediaRefusal` for an incomplete file."""
    stream.seek(start)
    magic = stream.read(28)
    kind, form = magic[:4], magic[8:12]
    if kind in (b"RIFF", b"RF64", b"BW64") and form == b"WAVE":
        return _find_in_chunks(stream, start, end, WAV, kind)
    if kind == b"RIFX" and form == b"WAVE":
        return _find_in_chunks(stream, start, end, WAV_BIG, kind)
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _find_in_chunks(stream, start, end, AIFF, kind)
    if kind == b"riff" and magic[4:16] == W64_TAIL[b"riff"]:
        return _find_in_chunks(stream, start, end, W64, kind)
    if kind == b"caff":
        return _find_in_chunks(stream, start, end, CAF, kind)
    if kind in (b".snd", b"dns."):
        return _find_in_au(magic, start, end)
    return None


def _find_in_chunks(stream: BinaryIO, start: int, end: int, chunks: Chunks, kind: bytes) -> Samples:
    headers: dict[bytes, bytes] = {}
    repaired = False
    for name, length, at, unpadded in _read_chunks(stream, start + chunks.first, end, chunks):
        repaired = repaired or unpadded
        if name != chunks.samples:
            if name[:4] in (b"fmt ", b"fact", b"ds64", b"COMM"):
                stream.seek(at)
                headers[name[:4]] = stream.read(min(length, 1 << 12))
            continue
        found = end - at
        if kind in (b"RF64", b"BW64") and length == 0xFFFFFFFF:
            length = int.from_bytes(headers.get(b"ds64", b"")[8:16], "little")
        if length >= (1 << 62 if chunks.length == 8 else UNKNOWN_LENGTH) and kind in UNKNOWN_KINDS:
            length, repaired = found, repaired or kind != b"caff"
        elif (
            not length and found and kind in (b"RIFF", b"RIFX") and not _only_chunks(stream, at, end, chunks)
        ):
            length, repaired = found, True
        if length > found:
            raise MediaRefusal(f"truncated: {length} bytes of samples announced, {found} found")
        _check_rest(stream, at + length, end, chunks)
        return _describe_samples(
            headers, at, length, chunks, b"" if not repaired else b"RIFX" if kind == b"RIFX" else b"RIFF"
        )
    raise MediaRefusal(f"truncated: found no chunk of samples ({chunks.samples[:4].decode()})")


def _describe_samples(
    headers: dict[bytes, bytes], at: int, length: int, chunks: Chunks, repaired: bytes
) -> Samples:
    """Return the samples. `repaired` is the container name if the header must be rewritten, else empty."""
    layout = headers.get(b"fmt ", b"")
    tag = int.from_bytes(layout[:2], chunks.order)
    if tag == 0xFFFE:
        tag = int.from_bytes(layout[24:26], chunks.order)  # the GUID begins with the older format tag
    head = b""
    if repaired:
        size = length.to_bytes(8, chunks.order)
        size = size[:4] if chunks.order == "little" else size[4:]
        fmt = b"fmt " + len(layout).to_bytes(4, chunks.order) + layout + b"\0" * (len(layout) % 2)
        whole = (4 + len(fmt) + 8 + length) % (1 << 32)
        head = repaired + whole.to_bytes(4, chunks.order) + b"WAVE" + fmt + b"data" + size
    if chunks == AIFF:
        return _describe_aiff_samples(headers.get(b"COMM", b""), at, length)
    if tag in PLAIN_FORMATS:
        width = int.from_bytes(layout[12:14], chunks.order)  # bytes of a sample of all channels
        return Samples(at, at + length, head=head, stored=length // width if width else 0, tail=chunks != W64)
    fact, per_block = headers.get(b"fact", b"")[:4], layout[18:20]
    return Samples(
        at,
        at + length,
        tag in MPEG_FORMATS,
        head,
        int.from_bytes(fact, chunks.order),
        int.from_bytes(per_block, chunks.order),
    )


def _describe_aiff_samples(common: bytes, at: int, length: int) -> Samples:
    channels, frames, bits = (int.from_bytes(common[a:b], "big") for a, b in ((0, 2), (2, 6), (6, 8)))
    width = channels * ((bits + 7) // 8)  # bytes of a sample of all channels
    stored = (length - 8) // width if width and common[18:22] in AIFF_PLAIN else 0
    # libsndfile counts the pad byte of a chunk as one more sample.
    if stored and not 0 <= stored - frames <= 1:
        raise MediaRefusal(
            f"{'truncated' if stored < frames else 'malformed'}: {frames} samples announced, bytes of {stored} found"
        )
    return Samples(at, at + length, announced=frames, per_block=2)


def _read_chunks(
    stream: BinaryIO, position: int, end: int, chunks: Chunks
) -> Iterator[tuple[bytes, int, int, bool]]:
    """Yield each chunk's name, length, content offset, and whether the pad byte before it is missing."""
    head, odd = chunks.name + chunks.length, False
    while position + head <= end:
        stream.seek(position - odd)
        raw = stream.read(head + odd)
        unpadded = odd and not _is_known(raw[1:5]) and _is_known(raw[:4])
        header = raw[:head] if unpadded or not odd else raw[1:]
        position -= unpadded
        if not _is_name(header[:4]):
            raise MediaRefusal(f"malformed: no chunk at byte {position} of the file; write the file again")
        length = int.from_bytes(header[chunks.name :], chunks.order) - (head if chunks.inclusive else 0)
        if length < 0:
            raise MediaRefusal(
                f"malformed: the chunk at byte {position} of the file is shorter than its own header"
            )
        yield header[: chunks.name], length, position + head, unpadded
        odd = chunks.align == 2 and length % 2 == 1
        position += head + length + -length % chunks.align


def _only_chunks(stream: BinaryIO, position: int, end: int, chunks: Chunks) -> bool:
    """Return whether only complete chunks follow from `position` on."""
    stop = position
    try:
        for _, length, at, _ in _read_chunks(stream, position, end, chunks):
            stop = at + length
    except MediaRefusal:
        return False
    return position < stop <= end


def _check_rest(stream: BinaryIO, position: int, end: int, chunks: Chunks) -> None:
    """Raise `MediaRefusal` if anything but chunks, tags or zeros follows the samples."""
    odd = chunks.align == 2 and position % 2
    position += odd
    while position < end:
        stream.seek(position - odd)
        raw = stream.read(32 + odd)
        header = raw[1:] if odd and not _is_known(raw[:4]) else raw
        position -= odd and header is raw
        name = header[:4]
        head = chunks.name + chunks.length
        if len(header) < head or (not any(header) and skip_zeros(stream, position) >= end):
            return
        if name in (b"RIFF", b"RIFX", b"RF64", b"FORM", b"caff", b"riff") or name == chunks.samples[:4]:
            raise MediaRefusal(f"found a second recording at byte {position}; cut the file there")
        if length := tag_length(header):
            position, odd = position + length, 0
            continue
        length = int.from_bytes(header[chunks.name : head], chunks.order) - (head if chunks.inclusive else 0)
        # A known chunk may be cut: no samples are lost.
        if not _is_known(name) and (not _is_name(name) or not 0 <= length <= end - position - head):
            raise MediaRefusal(
                f"malformed: the header says its samples end at byte {position}, but {end - position} bytes follow; "
                "write the file again"
            )
        odd = chunks.align == 2 and length % 2
        position += head + max(0, length) + -length % chunks.align


def _is_known(name: bytes) -> bool:
    return name.rstrip(b" ") in KNOWN


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def _find_in_au(magic: bytes, start: int, end: int) -> Samples:
    order: Literal["little", "big"] = "big" if magic[:4] == b".snd" else "little"
    offset, length = (int.from_bytes(magic[at : at + 4], order) for at in (4, 8))
    found = end - start - offset
    if length == 0xFFFFFFFF:
        length = found
    if length > found:
        raise MediaRefusal(f"truncated: {length} bytes of samples announced, {max(0, found)} found")
    if length < found:
        raise MediaRefusal(
            f"malformed: {length} bytes of samples announced, {found} found; write the file again"
        )
    return Samples(start + offset, end)
