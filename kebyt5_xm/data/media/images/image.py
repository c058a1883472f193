"""Decodes common image files to upright RGB, or raises a `MediaError`.

Rules:

- The content decides the format, not the extension. AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP are
  read. Formats that run programs or are rarely tested (EPS, PSD, ...) are refused.
- The pixel limit is checked from the header, before anything is decoded.
- In an animation or a file with several pages, the first image is used.
- EXIF orientation is applied. In a PNG it must stand before the pixels, so that reading the header does not decode
  them. Unreadable metadata is ignored.
- Grey and palette images become RGB. Transparent pixels are composited on white.
- CMYK, YCbCr and similar modes are converted by Pillow's formulas; colour profiles are ignored. A CMYK JPEG is read
  as Adobe writes it, with inverted inks, with or without Adobe's marker.
- 16-bit grey is scaled from 0..65535 to 0..255 (Pillow alone would clip it). 32-bit and floating-point
  pixels have no fixed range and are refused.
- A truncated file is refused; `jpeg` and `png` check what Pillow alone misses.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kebyt5_xm.data.media.bad_sample import LimitRefusal
from kebyt5_xm.data.media.images.jpeg import decode_jpeg
from kebyt5_xm.data.media.images.png import check_rows, strip_metadata
from kebyt5_xm.data.media.reference import (
    Limits,
    MediaRefusal,
    Readable,
    open_readable,
    wrap_errors,
)
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from kebyt5_xm.encoder import ImageHeader

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# The tag, and its values that swap width and height: Exif 2.32, section 4.6.4.
ORIENTATION_TAG = 0x0112
SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
# TIFF 6.0, section 8: ImageLength, StripOffsets, RowsPerStrip, PlanarConfiguration and its value 2.
IMAGE_LENGTH_TAG, STRIP_OFFSETS_TAG, ROWS_PER_STRIP_TAG, PLANAR_TAG, SEPARATE_PLANES = 257, 273, 278, 284, 2
# TIFF 6.0, section 8: BitsPerSample, PhotometricInterpretation and its value 1.
BITS_TAG, PHOTOMETRIC_TAG, BLACK_IS_ZERO = 258, 262, 1
# Packed pixel formats for which Pillow compares the transparent colour before it scales the pixels.
UNSCALED_TRANSPARENCY = ("L;2", "L;4", "I;16B", "RGB;16B")


def open_image(source: Readable, limits: Limits | None = None) -> "Image.Image":
    """Return the image, upright, in RGB and independent of the file; raise `MediaError` if it cannot be read."""
    with open_readable(source) as stream:
        image = _identify(stream, limits or Limits(), to_the_end=True)
        if image.format == "PNG":
            check_rows(stream)
        size = _upright_size(image)
        rgb = _convert_to_rgb(image, _decode_jpeg_pixels(image, stream))
        if rgb.size != size:
            raise MediaRefusal(
                f"the header says {size[0]} x {size[1]} pixels, found {rgb.size[0]} x {rgb.size[1]}"
            )
        return rgb


def read_image_header(source: Readable, limits: Limits | None = None) -> "ImageHeader":
    """Return the upright width and height without decoding; raise the `MediaError` of `open_image`."""
    from kebyt5_xm.encoder import ImageHeader

    with open_readable(source) as stream:
        return ImageHeader(*_upright_size(_identify(stream, limits or Limits(), to_the_end=False)))


def as_rgb(image: "Image.Image") -> "Image.Image":
    """Return an upright RGB copy of an image in memory."""
    with wrap_errors("the image"):
        return _convert_to_rgb(image)


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("found an image but no Pillow; install it: pip install 'kebyt5-xm[image]'") from None
    return Image


def _decode_jpeg_pixels(image: "Image.Image", stream: BinaryIO) -> "Image.Image | None":
    """Return a JPEG decoded with the library's warnings, or None if Pillow must decode it."""
    if image.format not in ("JPEG", "MPO"):
        return None
    stream.seek(0)
    pixels = decode_jpeg(stream.read(), image.mode)
    return None if pixels is None else _import_pillow().fromarray(pixels)


def _identify(stream: BinaryIO, limits: Limits, to_the_end: bool) -> "Image.Image":
    pillow = _import_pillow()
    stream = strip_metadata(stream, to_the_end)
    pillow.init()  # registers the formats; only the first call in a process does work
    try:
        image = pillow.open(stream, formats=[name for name in FORMATS if name in pillow.OPEN])
    except pillow.UnidentifiedImageError:
        raise MediaRefusal(f"found no readable image of the formats {', '.join(FORMATS)}") from None
    except pillow.DecompressionBombError:
        raise LimitRefusal(
            f"found more than {2 * (pillow.MAX_IMAGE_PIXELS or 0)} pixels, expected at most {limits.max_pixels}; so "
            "many are never read"
        ) from None
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaRefusal(f"found {width} x {height} pixels, expected at least one")
    if width * height > limits.max_pixels:
        raise LimitRefusal(
            f"found {width} x {height} pixels, expected at most {limits.max_pixels}; raise max_pixels to "
            "permit it"
        )
    _refuse_misread(image)
    return image


def _refuse_misread(image: "Image.Image") -> None:
    """Refuse files that Pillow (12.3) silently decodes to wrong values."""
    if image.format == "TIFF":
        _refuse_missing_strips(getattr(image, "tag_v2", {}))
    if image.format == "TIFF" and image.mode.startswith("I;16"):
        tags = getattr(image, "tag_v2", {})
        if tags.get(BITS_TAG) != (16,) or tags.get(PHOTOMETRIC_TAG) != BLACK_IS_ZERO:
            raise MediaRefusal(
                "found grey values of 9 to 15 bits, or white as zero; expected 16 bits, black as zero"
            )
    if image.format == "PNG" and "transparency" in image.info:
        tiles = getattr(image, "tile", [])
        if tiles and tiles[0].args in UNSCALED_TRANSPARENCY:
            raise MediaRefusal(
                "found a transparent colour in a PNG of 2, 4 or 16 bits, expected an alpha channel or 8 bits"
            )


def _refuse_missing_strips(tags: "Mapping[int, Any]") -> None:
    """Refuse a TIFF with too few strips for its rows (TIFF 6.0, section 3): Pillow fills the rest with zeros."""
    strips, rows = tags.get(STRIP_OFFSETS_TAG), tags.get(IMAGE_LENGTH_TAG)
    if strips is None or rows is None:  # a tiled TIFF
        return
    rows_per_strip = min(max(1, tags.get(ROWS_PER_STRIP_TAG, rows)), max(1, rows))
    planes = len(tags.get(BITS_TAG, (1,))) if tags.get(PLANAR_TAG) == SEPARATE_PLANES else 1
    expected = -(-rows // rows_per_strip) * planes
    if len(strips) < expected:
        raise MediaRefusal(f"truncated: its {rows} rows need {expected} strips, found {len(strips)}")


def _read_orientation(image: "Image.Image") -> int:
    if image.format == "TIFF":
        return 1  # Pillow applies it to TIFFs itself and reports the upright size
    try:
        # Not image.getexif(): for a PNG it decodes the pixels to look for Exif behind them.
        value = _import_pillow().Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _upright_size(image: "Image.Image") -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _read_orientation(image) in SWAPPING_ORIENTATIONS else (width, height)


def _convert_to_rgb(image: "Image.Image", pixels: "Image.Image | None" = None) -> "Image.Image":
    """Return the image upright and in RGB. `pixels` are its decoded pixels, if it has been decoded already."""
    pillow = _import_pillow()
    turn = {
        2: pillow.Transpose.FLIP_LEFT_RIGHT,
        3: pillow.Transpose.ROTATE_180,
        4: pillow.Transpose.FLIP_TOP_BOTTOM,
        5: pillow.Transpose.TRANSPOSE,
        6: pillow.Transpose.ROTATE_270,
        7: pillow.Transpose.TRANSVERSE,
        8: pillow.Transpose.ROTATE_90,
    }.get(_read_orientation(image))
    if pixels is not None:
        rgb = pixels if pixels.mode == "RGB" else pixels.convert("RGB")
        return rgb if turn is None else rgb.transpose(turn)
    image.load()
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        # Pillow scales the grey values of a PPM to 0..65535. 65535 = 257 * 255; adding 128 rounds to nearest.
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        rgb = pillow.fromarray(grey.astype(np.uint8)).convert("RGB")
    elif image.mode in ("I", "F"):
        raise MediaRefusal(
            "found 32-bit or floating-point pixels, expected 8 or 16 bits; their range is not known"
        )
    elif image.has_transparency_data:
        colours = image.convert("RGBA")
        white = pillow.new("RGBA", colours.size, "white")
        rgb = pillow.alpha_composite(white, colours).convert("RGB")
    else:
        rgb = image.convert("RGB")  # a copy even if the image is RGB
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # so that nobody applies the orientation again
    return rgb
