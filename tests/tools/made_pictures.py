"""Pictures of every odd mode, format and damage, each with what is right: its pixels, or that it is refused.

`PICTURES` is name -> how it is made; a fuzz may draw from it and mutate what it gets.
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
REFUSED = "refused"
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """`pixels` [height, width, 3] of the upright picture, to within `tolerance`; None if it is to be refused."""

    raw: bytes
    pixels: NDArray[np.uint8] | None
    tolerance: int = 0


def colours() -> Image.Image:
    """Return a smooth picture with four different corners."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.stack([6 * x, 8 * y, 3 * (x + y)], axis=-1).astype(np.uint8))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(image.convert("RGB"))


def chunks(raw: bytes) -> list[bytes]:
    """Return the chunks of a PNG, its signature left out."""
    found, place = [], 8
    while place < len(raw):
        size = int.from_bytes(raw[place : place + 4], "big")
        found.append(raw[place : place + 12 + size])
        place += 12 + size
    return found


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*parts: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_segments(raw: bytes, marker: int) -> list[int]:
    """Return where the segments of a marker begin."""
    return [place for place in range(len(raw) - 1) if raw[place : place + 2] == bytes([0xFF, marker])]


def mode(name: str, format: str, **options: object) -> Callable[[], Picture]:
    """Return a maker of a picture in one of Pillow's modes, saved without loss."""

    def make() -> Picture:
        image = colours().convert(name)
        return Picture(saved(image, format, **options), rgb(image))

    return make


def on_white(name: str, format: str, **options: object) -> Callable[[], Picture]:
    def make() -> Picture:
        image = colours().convert(name)
        image.putalpha(Image.fromarray((np.mgrid[:HEIGHT, :WIDTH][1] * 6).astype(np.uint8)))
        colour = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Picture(saved(image, format, **options), rgb(Image.alpha_composite(white, colour)), 1)

    return make


def lossy(
    format: str, image: Callable[[], Image.Image] = colours, **options: object
) -> Callable[[], Picture]:
    """Return a maker of a picture whose right pixels are those of Pillow."""

    def make() -> Picture:
        raw = saved(image(), format, **options)
        return Picture(raw, rgb(Image.open(io.BytesIO(raw))))

    return make


def grey16(format: str, dtype: str = "<u2") -> Callable[[], Picture]:
    def make() -> Picture:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        values = (x * 1771 + y * 3).astype(dtype)
        raw = saved(Image.fromarray(values), format)
        grey = np.round(values.astype(np.int64) / 257).astype(np.uint8)
        return Picture(raw, np.repeat(grey[..., None], 3, axis=-1))

    return make


def refused(make: Callable[[], bytes]) -> Callable[[], Picture]:
    return lambda: Picture(make(), None)


def read(make: Callable[[], bytes], tolerance: int = 0) -> Callable[[], Picture]:
    """Return a maker of bytes that are read as the smooth picture."""
    return lambda: Picture(make(), rgb(colours()), tolerance)


def cut(raw: bytes, share: float = 0.5, end: bytes = b"") -> bytes:
    return raw[: int(len(raw) * share)] + end


def jpeg(**options: object) -> bytes:
    large = colours().resize((131, 97))
    return saved(large, "JPEG", **{"quality": 90, **options})


def restart_damaged(step: int) -> bytes:
    """Return a JPEG of which a restart marker is missing (0), or has another number."""
    raw = jpeg(restart_marker_blocks=3)
    place = next(p for p in range(700, len(raw)) if raw[p] == 0xFF and 0xD0 <= raw[p + 1] <= 0xD7)
    if not step:
        following = next(
            p for p in range(place + 2, len(raw)) if raw[p] == 0xFF and 0xD0 <= raw[p + 1] <= 0xD7
        )
        return raw[:place] + raw[following:]
    return raw[: place + 1] + bytes([0xD0 + (raw[place + 1] - 0xD0 + step) % 8]) + raw[place + 2 :]


def behind_pixels(between: bytes) -> Picture:
    raw = saved(colours(), "JPEG", quality=90)
    return Picture(raw[:-2] + between + raw[-2:], rgb(Image.open(io.BytesIO(raw))))


def oriented(format: str, orientation: int, **options: object) -> Callable[[], Picture]:
    def make() -> Picture:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        raw = saved(colours(), format, exif=exif, **options)
        stored = rgb(Image.open(io.BytesIO(raw))) if format != "TIFF" else rgb(colours())
        turned = {
            2: stored[:, ::-1],
            3: stored[::-1, ::-1],
            4: stored[::-1],
            5: stored.transpose(1, 0, 2),
            6: stored.transpose(1, 0, 2)[:, ::-1],
            7: stored.transpose(1, 0, 2)[::-1, ::-1],
            8: stored.transpose(1, 0, 2)[::-1],
        }[orientation]
        return Picture(raw, turned)

    return make


def texts() -> bytes:
    info = PngInfo()
    info.add_text("parameters", "x" * 2_000_003, zip=True)
    info.add_itxt("Description", "그림" * 700_001, zip=True)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(colours(), "PNG", pnginfo=info, icc_profile=profile + bytes(1_999_993))


def png_with(name: bytes, body: bytes, place: int = 1) -> bytes:
    parts = chunks(saved(colours(), "PNG"))
    return png(*parts[:place], chunk(name, body), *parts[place:])


def png_checksum(name: bytes) -> bytes:
    raw = saved(colours(), "PNG")
    place = raw.index(name) - 4
    end = place + 12 + int.from_bytes(raw[place : place + 4], "big")
    return raw[: end - 1] + bytes([raw[end - 1] ^ 1]) + raw[end:]


def png_split(keep: Callable[[int, int], bool]) -> bytes:
    """Return a PNG whose pixels stand in seven chunks, of which some are kept."""
    head, *_, end = chunks(saved(colours(), "PNG"))
    lines = np.concatenate([np.zeros((HEIGHT, 1), np.uint8), rgb(colours()).reshape(HEIGHT, -1)], axis=1)
    pixels = zlib.compress(lines.tobytes(), 0)
    step = -(-len(pixels) // 7)
    parts = [chunk(b"IDAT", pixels[n * step : (n + 1) * step]) for n in range(7)]
    return png(head, *(part for n, part in enumerate(parts) if keep(n, 7)), end)


def png_interlaced() -> bytes:
    """Return the seven passes of Adam7 (PNG 3, section 8.1), which Pillow reads and does not write."""
    values, lines = rgb(colours()), b""
    for first_x, first_y, step_x, step_y in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        part = values[first_y::step_y, first_x::step_x]
        lines += b"".join(b"\0" + line.tobytes() for line in part)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))


def png_without_last_rows(make: Callable[[], bytes]) -> bytes:
    """Return a sound PNG, checksums and all, that lacks its last five rows: within one, Pillow would tell."""
    first, *middle, last = chunks(make())
    pixels = zlib.decompress(b"".join(part[8:-4] for part in middle if part[4:8] == b"IDAT"))
    return png(first, chunk(b"IDAT", zlib.compress(pixels[: -5 * (1 + 3 * colours().width)])), last)


def png_colours16() -> bytes:
    values = rgb(colours()).astype(">u2") * 257
    lines = b"".join(b"\0" + line.tobytes() for line in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0)
    return png(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))


def frames(format: str, **options: object) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "lime")]
    return saved(colours(), format, save_all=True, append_images=others, **options)


def cmyk_without_adobe() -> Picture:
    """Inks as Adobe stores them, turned over, without its mark: docs/data.md says that they are taken so."""
    raw = saved(Image.new("CMYK", (WIDTH, HEIGHT), (0, 255, 255, 0)), "JPEG", quality=95)
    (place,) = jpeg_segments(raw, 0xEE)
    raw = raw[:place] + raw[place + 2 + int.from_bytes(raw[place + 2 : place + 4], "big") :]
    return Picture(raw, np.full((HEIGHT, WIDTH, 3), (255, 0, 0), np.uint8), 3)


def tiff_that_says_more_rows() -> bytes:
    raw = bytearray(saved(colours(), "TIFF"))
    directory = int.from_bytes(raw[4:8], "little")
    for entry in range(
        directory + 2, directory + 2 + 12 * int.from_bytes(raw[directory : directory + 2], "little"), 12
    ):
        if int.from_bytes(raw[entry : entry + 2], "little") == 257:  # ImageLength
            raw[entry + 8 : entry + 10] = (2 * HEIGHT).to_bytes(2, "little")
        if int.from_bytes(raw[entry : entry + 2], "little") == 278:  # RowsPerStrip
            raw[entry + 8 : entry + 10] = HEIGHT.to_bytes(2, "little")
    return bytes(raw)


def progressive_after_scan() -> bytes:
    raw = jpeg(progressive=True)
    return raw[: jpeg_segments(raw, 0xDA)[3]] + b"\xff\xd9"


def floats() -> bytes:
    return saved(Image.fromarray(np.ones((HEIGHT, WIDTH), np.float32)), "TIFF")


PICTURES: dict[str, Callable[[], Picture]] = {
    # modes
    **{f"png-{name}": mode(name, "PNG") for name in ("1", "L", "P", "RGB")},
    **{f"tiff-{name}": mode(name, "TIFF") for name in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB")},
    **{f"bmp-{name}": mode(name, "BMP") for name in ("1", "L", "P", "RGB")},
    **{f"ppm-{name}": mode(name, "PPM") for name in ("1", "L", "RGB")},
    **{f"gif-{name}": mode(name, "GIF") for name in ("1", "L", "P")},
    **{f"tiff-{name}": mode("RGB", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "packbits")},
    "png-RGBA": on_white("RGBA", "PNG"),
    "png-LA": on_white("LA", "PNG"),
    "tiff-RGBA": on_white("RGBA", "TIFF"),
    "tiff-LA": on_white("LA", "TIFF"),
    "webp-RGBA": on_white("RGBA", "WEBP", lossless=True, exact=True),
    "png-PA": lambda: Picture(
        saved(colours().convert("P"), "PNG", transparency=bytes([0] * 256)),
        np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    ),
    "webp-lossy": lossy("WEBP", quality=80),
    "avif": lossy("AVIF", quality=80),
    "jpeg2000": mode("RGB", "JPEG2000"),
    "png-16": grey16("PNG"),
    "tiff-16": grey16("TIFF"),
    "tiff-16-big-endian": grey16("TIFF", ">u2"),
    "tiff-strips-missing": refused(tiff_that_says_more_rows),
    "ppm-16": grey16("PPM"),
    "png-rgb-16": read(png_colours16),
    "tiff-F": refused(floats),
    "tiff-I": refused(lambda: saved(colours().convert("I"), "TIFF")),
    # JPEG
    **{f"jpeg-{n}": lossy("JPEG", subsampling=n, quality=85) for n in (0, 1, 2)},
    "jpeg-progressive": lossy("JPEG", progressive=True),
    "jpeg-grey": lossy("JPEG", lambda: colours().convert("L")),
    "jpeg-cmyk": lossy("JPEG", lambda: colours().convert("CMYK")),
    "jpeg-rgb-kept": lossy("JPEG", keep_rgb=True),
    "jpeg-restarts": lossy("JPEG", restart_marker_blocks=2),
    "jpeg-one-pixel": lossy("JPEG", lambda: colours().crop((0, 0, 1, 1))),
    "jpeg-cmyk-without-adobe": cmyk_without_adobe,
    "jpeg-bytes-before-the-end": lambda: behind_pixels(b"\0" * 13),
    "mpo": lambda: Picture(frames("MPO", quality=90), rgb(Image.open(io.BytesIO(frames("MPO", quality=90))))),
    "jpeg-cut": refused(lambda: cut(jpeg())),
    "jpeg-cut-end-mark": refused(lambda: cut(jpeg(), end=b"\xff\xd9")),
    "jpeg-cut-zeros": refused(lambda: cut(jpeg(), end=bytes(997) + b"\xff\xd9")),
    "jpeg-cut-joined": refused(lambda: cut(jpeg(), end=jpeg())),
    "jpeg-grey-cut-end-mark": refused(
        lambda: cut(saved(colours().resize((131, 97)).convert("L"), "JPEG"), 0.6, b"\xff\xd9")
    ),
    "jpeg-cmyk-cut-end-mark": refused(
        lambda: cut(saved(colours().resize((131, 97)).convert("CMYK"), "JPEG"), 0.7, b"\xff\xd9")
    ),
    "jpeg-progressive-cut": refused(lambda: cut(jpeg(progressive=True), 0.5, b"\xff\xd9")),
    "jpeg-progressive-after-scan": refused(progressive_after_scan),
    "jpeg-restart-missing": refused(lambda: restart_damaged(0)),
    "jpeg-restart-other": refused(lambda: restart_damaged(3)),
    # metadata, orientation, PNG's structure
    "png-rows-missing": refused(lambda: png_without_last_rows(lambda: saved(colours(), "PNG"))),
    "png-interlaced-rows-missing": refused(lambda: png_without_last_rows(png_interlaced)),
    "png-large-texts-and-profile": read(texts),
    **{f"png-short-{n.decode()}": read(lambda n=n: png_with(n, b"\1")) for n in (b"pHYs", b"gAMA", b"cHRM", b"sRGB")},
    "png-text-behind": read(lambda: png_with(b"zTXt", b"a\0\0" + zlib.compress(bytes(2_000_003)), -1)),
    "png-broken-exif": read(lambda: png_with(b"eXIf", b"II*\0\xff\xff\xff")),
    "png-wrong-text-checksum": read(lambda: png_with(b"tEXt", b"a\0b").replace(b"a\0b", b"a\0c")),
    **{f"jpeg-orientation-{n}": oriented("JPEG", n) for n in range(2, 9)},
    **{f"png-orientation-{n}": oriented("PNG", n) for n in (3, 6)},
    **{f"webp-orientation-{n}": oriented("WEBP", n, lossless=True) for n in (5, 8)},
    "tiff-orientation-6": oriented("TIFF", 6),
    "png-interlaced": read(png_interlaced),
    "png-seven-idats": read(lambda: png_split(lambda n, total: True)),
    "png-without-an-idat": refused(lambda: png_split(lambda n, total: n != 3)),
    "png-without-the-last-idat": refused(lambda: png_split(lambda n, total: n < total - 2)),
    "png-no-idat": refused(lambda: png_split(lambda n, total: False)),
    "png-no-end": read(lambda: png(*chunks(saved(colours(), "PNG"))[:-1])),
    "png-checksum-of-pixels": refused(lambda: png_checksum(b"IDAT")),
    "png-checksum-of-header": refused(lambda: png_checksum(b"IHDR")),
    "png-unknown-critical": refused(lambda: png_with(b"CgBI", b"\x50\0\x20\2", 0)),
    "png-cut": refused(lambda: cut(saved(colours(), "PNG"))),
    "png-joined": read(lambda: saved(colours(), "PNG") + saved(colours().rotate(90), "PNG")),
    # several frames: the first
    "apng": read(lambda: frames("PNG")),
    "gif-frames": lambda: Picture(
        saved(Image.new("P", (WIDTH, HEIGHT), 0), "GIF", save_all=True, append_images=[colours()]),
        rgb(Image.new("P", (WIDTH, HEIGHT), 0)),
    ),
    "tiff-pages": read(lambda: frames("TIFF")),
    "webp-frames": read(lambda: frames("WEBP", lossless=True)),
    # other formats, cut
    **{
        f"{format.lower()}-cut-{share}-{n}": refused(lambda f=format, s=share, o=o: cut(saved(colours(), f, **o), s))
        for n, (format, o) in enumerate((
            ("GIF", {}), ("WEBP", {"lossless": True}), ("WEBP", {"quality": 90}), ("TIFF", {}), ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}), ("AVIF", {"quality": 90}), ("JPEG2000", {}),
        ))
        for share in (0.5, 0.9)
    },
}  # fmt: skip
