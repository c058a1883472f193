"""Removes metadata from PNG files, because Pillow refuses an image for a bad text, profile or resolution chunk.

The chunks that remain decide the pixels (PNG 3, section 5.6: the critical chunks, and tRNS) and the orientation
(eXIf, and the older text chunks for it). Their checksums are verified. An APNG keeps only its still image.
"""

import io
import zlib
from typing import BinaryIO

from kebyt5_xm.data.media.bad_sample import MediaRefusal

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
ORIENTATION_CHUNKS = {
    b"eXIf": b"",
    b"iTXt": b"XML:com.adobe.xmp\0",
    b"tEXt": b"Raw profile type exif\0",
    b"zTXt": b"Raw profile type exif\0",
}
"""The chunks in which Pillow looks for the orientation, and how their content begins."""
MAX_METADATA = 1 << 16  # bytes of such a chunk; the limit for Exif in a JPEG
SAMPLES_PER_PIXEL = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type (section 11.2.1)
# First column, first row and their steps in each pass of an interlaced image (section 8.1).
PASSES = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)
)  # fmt: skip
BLOCK = 1 << 20  # bytes of pixels decompressed at once
CRITICAL = 0x20  # this bit of the first letter is 0 in critical chunks (section 5.4)


def strip_metadata(stream: BinaryIO, to_the_end: bool) -> BinaryIO:
    """Return a PNG without its metadata, or any other file unchanged; raise `MediaRefusal` for a damaged PNG.

    Without `to_the_end` the returned file ends where the pixels begin.
    """
    stream.seek(0)
    if stream.read(len(SIGNATURE)) != SIGNATURE:
        stream.seek(0)
        return stream
    parts = [SIGNATURE]
    while len(head := stream.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name in PIXEL_CHUNKS or (name in ORIENTATION_CHUNKS and size <= MAX_METADATA):
            if name == b"IDAT" and not to_the_end:
                parts.append(head)
                break
            body = stream.read(size + 4)
            is_valid = len(body) == size + 4 and zlib.crc32(name + body[:-4]) == int.from_bytes(
                body[-4:], "big"
            )
            if is_valid and body.startswith(ORIENTATION_CHUNKS.get(name, b"")):
                parts += head, body
            elif not is_valid and name in PIXEL_CHUNKS:
                found = "a wrong checksum" if len(body) == size + 4 else "the end of the file"
                raise MediaRefusal(f"damaged or truncated: found {found} in the chunk {name.decode()}")
        elif not name.isalpha() or not name.isascii():
            raise MediaRefusal("damaged: found no chunk where one should begin")
        elif not name[0] & CRITICAL:
            raise MediaRefusal(f"found the critical chunk {name.decode()}, which is not in the PNG standard")
        else:
            stream.seek(size + 4, io.SEEK_CUR)
        if name == b"IEND":
            break
    return io.BytesIO(b"".join(parts))


def check_rows(stream: BinaryIO) -> None:
    """Raise `MediaRefusal` if a PNG lacks its last rows; Pillow would silently leave them black.

    `stream` must have passed `strip_metadata`, and the image must be within the size limits.
    """
    stream.seek(len(SIGNATURE))
    inflate, expected, found = zlib.decompressobj(), 0, 0
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IHDR":
            header = stream.read(size)
            width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
            bits = header[8] * SAMPLES_PER_PIXEL.get(header[9], 0)
            for left, top, across, down in PASSES if header[12] else ((0, 0, 1, 1),):
                columns, rows = -(-(width - left) // across), -(-(height - top) // down)
                expected += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
        elif name == b"IDAT":
            data = stream.read(size)
            try:
                while data and found < expected:
                    found += len(inflate.decompress(data, BLOCK))
                    data = inflate.unconsumed_tail
            except zlib.error as error:
                raise MediaRefusal(f"damaged: its pixels cannot be decompressed ({error})") from None
        else:
            stream.seek(size, io.SEEK_CUR)
        stream.seek(4, io.SEEK_CUR)
    if found < expected:
        raise MediaRefusal(f"truncated: the header announces {expected} bytes of pixels, found {found}")
