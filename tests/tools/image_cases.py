"""Image files of every unusual mode, format and damage, each with its correct pixels, or None if it must be refused.

`IMAGES` maps names to functions that build a case. Fuzz tests draw from it and mutate the files.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

WIDTH, HEIGHT = 37, 29
ORIENTATION = 0x0112


@dataclass(frozen=True)
class ImageCase:
    """A file and its `pixels` [height, width, 3], upright, to within `tolerance`; None if it must be refused."""

    raw: bytes
    pixels: NDArray[np.uint8] | None
    tolerance: int = 0


def make_image() -> Image.Image:
    """Return a smooth image (so that lossy formats keep it) with four different corners."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([6 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8))


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def split_chunks(raw: bytes) -> list[bytes]:
    """Return the chunks of a PNG, without its signature."""
    found, offset = [], 8
    while offset < len(raw):
        size = int.from_bytes(raw[offset : offset + 4], "big")
        found.append(raw[offset : offset + 12 + size])
        offset += 12 + size
    return found


def make_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def join_png(*parts: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def find_jpeg_segments(raw: bytes, marker: int) -> list[int]:
    """Return the offsets of a JPEG's segments with this marker."""
    return [offset for offset in range(len(raw) - 1) if raw[offset : offset + 2] == bytes([0xFF, marker])]


def lossless_case(name: str, format: str, **options: object) -> Callable[[], ImageCase]:
    """Return a builder of a losslessly saved image in one of Pillow's modes."""

    def make() -> ImageCase:
        image = make_image().convert(name)
        return ImageCase(encode(image, format, **options), to_rgb(image))

    return make


def transparent_case(name: str, format: str, **options: object) -> Callable[[], ImageCase]:
    def make() -> ImageCase:
        image = make_image().convert(name)
        image.putalpha(Image.fromarray((np.mgrid[:HEIGHT, :WIDTH][1] * 6).astype(np.uint8)))
        colour = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return ImageCase(encode(image, format, **options), to_rgb(Image.alpha_composite(white, colour)), 1)

    return make


def lossy_case(
    format: str, image: Callable[[], Image.Image] = make_image, **options: object
) -> Callable[[], ImageCase]:
    """Return a builder of a lossy image whose correct pixels are Pillow's."""

    def make() -> ImageCase:
        raw = encode(image(), format, **options)
        return ImageCase(raw, to_rgb(Image.open(io.BytesIO(raw))))

    return make


def grey16_case(format: str, dtype: str = "<u2") -> Callable[[], ImageCase]:
    def make() -> ImageCase:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        values = (x * 1771 + y * 3).astype(dtype)
        raw = encode(Image.fromarray(values), format)
        grey = np.round(values.astype(np.int64) / 257).astype(np.uint8)
        return ImageCase(raw, np.repeat(grey[..., None], 3, axis=-1))

    return make


def refused_case(make: Callable[[], bytes]) -> Callable[[], ImageCase]:
    return lambda: ImageCase(make(), None)


def readable_case(make: Callable[[], bytes], tolerance: int = 0) -> Callable[[], ImageCase]:
    """Return a builder of a file that must decode to the smooth image."""
    return lambda: ImageCase(make(), to_rgb(make_image()), tolerance)


def truncate(raw: bytes, share: float = 0.5, end: bytes = b"") -> bytes:
    return raw[: int(len(raw) * share)] + end


def make_jpeg(**options: object) -> bytes:
    large = make_image().resize((131, 97))
    return encode(large, "JPEG", **{"quality": 90, **options})


def make_jpeg_with_bad_restart(step: int) -> bytes:
    """Return a JPEG in which a restart marker is missing (`step` 0), or its number is changed by `step`."""
    raw = make_jpeg(restart_marker_blocks=3)
    offset = next(p for p in range(700, len(raw)) if raw[p] == 0xFF and 0xD0 <= raw[p + 1] <= 0xD7)
    if not step:
        following = next(
            p for p in range(offset + 2, len(raw)) if raw[p] == 0xFF and 0xD0 <= raw[p + 1] <= 0xD7
        )
        return raw[:offset] + raw[following:]
    return raw[: offset + 1] + bytes([0xD0 + (raw[offset + 1] - 0xD0 + step) % 8]) + raw[offset + 2 :]


def extra_bytes_case(between: bytes) -> ImageCase:
    raw = encode(make_image(), "JPEG", quality=90)
    return ImageCase(raw[:-2] + between + raw[-2:], to_rgb(Image.open(io.BytesIO(raw))))


def orientation_case(format: str, orientation: int, **options: object) -> Callable[[], ImageCase]:
    def make() -> ImageCase:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        raw = encode(make_image(), format, exif=exif, **options)
        stored = to_rgb(Image.open(io.BytesIO(raw))) if format != "TIFF" else to_rgb(make_image())
        turned = {
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: stored.transpose(1, 0, 2)[:, ::-1],
            7: stored.transpose(1, 0, 2)[::-1, ::-1],
            8: stored.transpose(1, 0, 2)[::-1],
        }[orientation]
        return ImageCase(raw, turned)

    return make


def make_png_with_texts() -> bytes:
    info = PngInfo()
    info.add_text("parameters", "x" * 2_000_003, zip=True)
    info.add_itxt("Description", "그림" * 700_001, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return encode(make_image(), "PNG", pnginfo=info, icc_profile=profile + bytes(1_999_993))


def add_png_chunk(name: bytes, body: bytes, offset: int = 1) -> bytes:
    parts = split_chunks(encode(make_image(), "PNG"))
    return join_png(*parts[:offset], make_chunk(name, body), *parts[offset:])


def break_png_checksum(name: bytes) -> bytes:
    raw = encode(make_image(), "PNG")
    offset = raw.index(name) - 4
    end = offset + 12 + int.from_bytes(raw[offset : offset + 4], "big")
    return raw[: end - 1] + bytes([raw[end - 1] ^ 1]) + raw[end:]


def split_png_pixels(keep: Callable[[int, int], bool]) -> bytes:
    """Return a PNG whose pixels are split into seven chunks; `keep(number, 7)` selects the chunks that remain."""
    head, *_, end = split_chunks(encode(make_image(), "PNG"))
    lines = np.concatenate(
        [np.zeros((HEIGHT, 1), np.uint8), to_rgb(make_image()).reshape(HEIGHT, -1)], axis=1
    )
    pixels = zlib.compress(lines.tobytes(), 0)
    step = -(-len(pixels) // 7)
    parts = [make_chunk(b"IDAT", pixels[n * step : (n + 1) * step]) for n in range(7)]
    return join_png(head, *(part for n, part in enumerate(parts) if keep(n, 7)), end)


def make_interlaced_png() -> bytes:
    """Return a PNG with the seven passes of Adam7 (PNG 3, section 8.1), which Pillow reads but cannot write."""
    values, lines = to_rgb(make_image()), b""
    for first_x, first_y, step_x, step_y in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        part = values[first_y::step_y, first_x::step_x]
        lines += b"".join(b"\0" + line.tobytes() for line in part)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return join_png(
        make_chunk(b"IHDR", header), make_chunk(b"IDAT", zlib.compress(lines)), make_chunk(b"IEND", b"")
    )


def drop_last_png_rows(make: Callable[[], bytes]) -> bytes:
    """Return a PNG without its last five rows, with valid checksums. (Pillow detects a cut within a row.)"""
    first, *middle, last = split_chunks(make())
    pixels = zlib.decompress(b"".join(part[8:-4] for part in middle if part[4:8] == b"IDAT"))
    return join_png(
        first, make_chunk(b"IDAT", zlib.compress(pixels[: -5 * (1 + 3 * make_image().width)])), last
    )


def make_png16() -> bytes:
    values = to_rgb(make_image()).astype(">u2") * 257
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return join_png(
        make_chunk(b"IHDR", header), make_chunk(b"IDAT", zlib.compress(lines)), make_chunk(b"IEND", b"")
    )


def make_frames(format: str, **options: object) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime")]
    return encode(make_image(), format, save_all=True, append_images=others, **options)


def cmyk_without_adobe_case() -> ImageCase:
    """A CMYK JPEG with inverted inks but without Adobe's marker; docs/data.md says that it is read as Adobe's."""
    raw = encode(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG", quality=95)
    (offset,) = find_jpeg_segments(raw, 0xEE)
    raw = raw[:offset] + raw[offset + 2 + int.from_bytes(raw[offset + 2 : offset + 4], "big") :]
    return ImageCase(raw, np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8), 3)


def make_tiff_with_missing_strips() -> bytes:
    raw = bytearray(encode(make_image(), "TIFF"))
    directory = int.from_bytes(raw[4:8], "little")
    for entry in range(
        directory + 2, directory + 2 + 12 * int.from_bytes(raw[directory : directory + 2], "little"), 12
    ):
        if int.from_bytes(raw[entry : entry + 2], "little") == 257:  # ImageLength
            raw[entry + 8 : entry + 10] = (2 * HEIGHT).to_bytes(2, "little")
        if int.from_bytes(raw[entry : entry + 2], "little") == 278:  # RowsPerStrip
            raw[entry + 8 : entry + 10] = HEIGHT.to_bytes(2, "little")
    return bytes(raw)


def cut_progressive_after_scan() -> bytes:
    raw = make_jpeg(progressive=True)
    return raw[: find_jpeg_segments(raw, 0xDA)[3]] + b"\xff\xd9"


def make_float_tiff() -> bytes:
    return encode(Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)), "TIFF")


IMAGES: dict[str, Callable[[], ImageCase]] = {
    # modes
    **{f"png-{name}": lossless_case(name, "PNG") for name in ("1", "L", "P", "RGB")},
    **{f"tiff-{name}": lossless_case(name, "TIFF") for name in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB")},
    **{f"bmp-{name}": lossless_case(name, "BMP") for name in ("1", "L", "P", "RGB")},
    **{f"ppm-{name}": lossless_case(name, "PPM") for name in ("1", "L", "RGB")},
    **{f"gif-{name}": lossless_case(name, "GIF") for name in ("1", "L", "P")},
    **{
        f"tiff-{name}": lossless_case("RGB", "TIFF", compression=name)
        for name in ("tiff_lzw", "tiff_deflate", "packbits")
    },
    "png-RGBA": transparent_case("RGBA", "PNG"),
    "png-LA": transparent_case("LA", "PNG"),
    "tiff-RGBA": transparent_case("RGBA", "TIFF"),
    "tiff-LA": transparent_case("LA", "TIFF"),
    "webp-RGBA": transparent_case("RGBA", "WEBP", lossless=True, exact=True),
    "png-PA": lambda: ImageCase(
        encode(make_image().convert("P"), "PNG", transparency=bytes([0] * 256)),
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    ),
    "webp-lossy": lossy_case("WEBP", quality=80),
    "avif": lossy_case("AVIF", quality=80),
    "jpeg2000": lossless_case("RGB", "JPEG2000"),
    "png-16": grey16_case("PNG"),
    "tiff-16": grey16_case("TIFF"),
    "tiff-16-big-endian": grey16_case("TIFF", ">u2"),
    "tiff-strips-missing": refused_case(make_tiff_with_missing_strips),
    "ppm-16": grey16_case("PPM"),
    "png-rgb-16": readable_case(make_png16),
    "tiff-F": refused_case(make_float_tiff),
    "tiff-I": refused_case(lambda: encode(make_image().convert("I"), "TIFF")),
    # JPEG
    **{f"jpeg-{n}": lossy_case("JPEG", subsampling=n, quality=85) for n in (0, 1, 2)},
    "jpeg-progressive": lossy_case("JPEG", progressive=True),
    "jpeg-grey": lossy_case("JPEG", lambda: make_image().convert("L")),
    "jpeg-cmyk": lossy_case("JPEG", lambda: make_image().convert("CMYK")),
    "jpeg-rgb-kept": lossy_case("JPEG", keep_rgb=True),
    "jpeg-restarts": lossy_case("JPEG", restart_marker_blocks=2),
    "jpeg-one-pixel": lossy_case("JPEG", lambda: make_image().crop((0, 0, 1, 1))),
    "jpeg-cmyk-without-adobe": cmyk_without_adobe_case,
    "jpeg-bytes-before-the-end": lambda: extra_bytes_case(b"\0" * 13),
    "mpo": lambda: ImageCase(
        make_frames("MPO", quality=90), to_rgb(Image.open(io.BytesIO(make_frames("MPO", quality=90))))
    ),
    "jpeg-cut": refused_case(lambda: truncate(make_jpeg())),
    "jpeg-cut-end-mark": refused_case(lambda: truncate(make_jpeg(), end=b"\xff\xd9")),
    "jpeg-cut-zeros": refused_case(lambda: truncate(make_jpeg(), end=bytes(997) + b"\xff\xd9")),
    "jpeg-cut-joined": refused_case(lambda: truncate(make_jpeg(), end=make_jpeg())),
    "jpeg-grey-cut-end-mark": refused_case(
        lambda: truncate(encode(make_image().resize((131, 97)).convert("L"), "JPEG"), 0.6, b"\xff\xd9")
    ),
    "jpeg-cmyk-cut-end-mark": refused_case(
        lambda: truncate(encode(make_image().resize((131, 97)).convert("CMYK"), "JPEG"), 0.7, b"\xff\xd9")
    ),
    "jpeg-progressive-cut": refused_case(lambda: truncate(make_jpeg(progressive=True), 0.5, b"\xff\xd9")),
    "jpeg-progressive-after-scan": refused_case(cut_progressive_after_scan),
    "jpeg-restart-missing": refused_case(lambda: make_jpeg_with_bad_restart(0)),
    "jpeg-restart-other": refused_case(lambda: make_jpeg_with_bad_restart(3)),
    # metadata, orientation, PNG's structure
    "png-rows-missing": refused_case(lambda: drop_last_png_rows(lambda: encode(make_image(), "PNG"))),
    "png-interlaced-rows-missing": refused_case(lambda: drop_last_png_rows(make_interlaced_png)),
    "png-large-texts-and-profile": readable_case(make_png_with_texts),
    **{
        f"png-short-{n.decode()}": readable_case(lambda n=n: add_png_chunk(n, b"\1"))
        for n in (b"pHYs", b"gAMA", b"cHRM", b"sRGB")
    },
    "png-text-behind": readable_case(lambda: add_png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_003)), -1)),
    "png-broken-exif": readable_case(lambda: add_png_chunk(b"eXIf", b"II*\0\xff\xff\xff")),
    "png-wrong-text-checksum": readable_case(lambda: add_png_chunk(b"tEXt", b"a\0b").replace(b"a\0b", b"a\0c")),
    **{f"jpeg-orientation-{n}": orientation_case("JPEG", n) for n in range(2, 9)},
    **{f"png-orientation-{n}": orientation_case("PNG", n) for n in (3, 6)},
    **{f"webp-orientation-{n}": orientation_case("WEBP", n, lossless=True) for n in (5, 8)},
    "tiff-orientation-6": orientation_case("TIFF", 6),
    "png-interlaced": readable_case(make_interlaced_png),
    "png-seven-idats": readable_case(lambda: split_png_pixels(lambda n, total: True)),
    "png-without-an-idat": refused_case(lambda: split_png_pixels(lambda n, total: n != 3)),
    "png-without-the-last-idat": refused_case(lambda: split_png_pixels(lambda n, total: n < total - 2)),
    "png-no-idat": refused_case(lambda: split_png_pixels(lambda n, total: False)),
    "png-no-end": readable_case(lambda: join_png(*split_chunks(encode(make_image(), "PNG"))[:-1])),
    "png-checksum-of-pixels": refused_case(lambda: break_png_checksum(b"IDAT")),
    "png-checksum-of-header": refused_case(lambda: break_png_checksum(b"IHDR")),
    "png-unknown-critical": refused_case(lambda: add_png_chunk(b"CgBI", b"\x50\0\x20\2", 0)),
    "png-cut": refused_case(lambda: truncate(encode(make_image(), "PNG"))),
    "png-joined": readable_case(lambda: encode(make_image(), "PNG") + encode(make_image().rotate(90), "PNG")),
    # several frames: only the first is used
    "apng": readable_case(lambda: make_frames("PNG")),
    "gif-frames": lambda: ImageCase(
        encode(Image.new("P", (WIDTH, HEIGHT), 0), "GIF", save_all=True, append_images=[make_image()]),
        to_rgb(Image.new("P", (WIDTH, HEIGHT), 0)),
    ),
    "tiff-pages": readable_case(lambda: make_frames("TIFF")),
    "webp-frames": readable_case(lambda: make_frames("WEBP", lossless=True)),
    # other formats, truncated
    **{
        f"{format.lower()}-cut-{share}-{n}": refused_case(
            lambda f=format, s=share, o=o: truncate(encode(make_image(), f, **o), s)
        )
        for n, (format, o) in enumerate((
            ("GIF", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 90}), ("TIFF", {}), ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("AVIF", {"quality": 90}), ("JPEG2000", {}),
        ))
        for share in (0.5, 0.9)
    },
}  # fmt: skip
