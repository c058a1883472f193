"""Images: any common file becomes an upright RGB image, or a `MediaError`.

What is done about everything that is not plain RGB:

- The content decides the format, not the extension. AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF and WebP
  are read; formats that run programs or are rarely tested (EPS, PSD, ...) are refused.
- The pixel limit is checked from the header, before anything is decoded.
- Of an animation or a file of several pages, the first image is used.
- EXIF orientation is applied. (In a PNG only if it stands before the pixels, so that reading the header need
  not decode them.) Metadata that cannot be read is taken for none: the pixels are what matters.
- Grey and palette become RGB; transparency is laid on white.
- CMYK, YCbCr and the like are converted by Pillow's formulas; colour profiles are not applied. A CMYK JPEG is taken
  as Adobe's programs write it, with its inks turned over, whether Adobe's mark is there or not.
- 16-bit grey is scaled from 0..65535 to 0..255 (Pillow alone would clip it). 32-bit and floating-point
  pixels have no fixed range and are refused.
- A truncated file is refused; see `jpeg` and `png` for what Pillow alone would not tell.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from kebyt5_xm.data.media.images.jpeg import decode_jpeg
from kebyt5_xm.data.media.images.png import check_rows, strip_metadata
from kebyt5_xm.data.media.reference import Limits, MediaRefusal, Readable, open_readable, wrap_errors
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from kebyt5_xm.encoder import ImageHeader

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")

# The tag's number and the values that swap width and height: Exif 2.32, section 4.6.4.
ORIENTATION_TAG = 0x0112
SWAPPING_ORIENTATIONS = (5, 6, 7, 8)
# TIFF 6.0, section 8: ImageLength, StripOffsets, RowsPerStrip, PlanarConfiguration and a value of it.
IMAGE_LENGTH_TAG, STRIP_OFFSETS_TAG, ROWS_PER_STRIP_TAG, PLANAR_TAG, SEPARATE_PLANES = 257, 273, 278, 284, 2
# The same: BitsPerSample and PhotometricInterpretation, and a value of the latter.
BITS_TAG, PHOTOMETRIC_TAG, BLACK_IS_ZERO = 258, 262, 1
# Pillow's names of packed pixels whose transparent colour it compares before it scales them.
UNSCALED_TRANSPARENCY = ("L;2", "L;4", "I;16B", "RGB;16B")


def open_image(source: Readable, limits: Limits | None = None) -> "Image.Image":
    """Return the image as an upright, detached RGB image; raise `MediaError` if it cannot be had."""
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
    """Return the upright width and height without decoding; raise `MediaError` as `open_image` would."""
    from kebyt5_xm.encoder import ImageHeader

    with open_readable(source) as stream:
        return ImageHeader(*_upright_size(_identify(stream, limits or Limits(), to_the_end=False)))


def as_rgb(image: "Image.Image") -> "Image.Image":
    """Return an image that is already in memory as `open_image` would: upright, RGB, a copy."""
    with wrap_errors("the image"):
        return _convert_to_rgb(image)


def _import_pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError:
        raise UserError("found an image but no Pillow; install it: pip install 'kebyt5-xm[image]'") from None
    return Image


def _decode_jpeg_pixels(image: "Image.Image", stream: BinaryIO) -> "Image.Image | None":
    """Return a JPEG decoded with the library's warnings; None if Pillow is to decode it."""
    if image.format not in ("JPEG", "MPO"):
        return None
    stream.seek(0)
    pixels = decode_jpeg(stream.read(), image.mode)
    return None if pixels is None else _import_pillow().fromarray(pixels)


def _identify(stream: BinaryIO, limits: Limits, to_the_end: bool) -> "Image.Image":
    pillow = _import_pillow()
    stream = strip_metadata(stream, to_the_end)
    pillow.init()  # else a format of the list may not be known yet; each process does it once
    try:
        image = pillow.open(stream, formats=[name for name in FORMATS if name in pillow.OPEN])
    except pillow.UnidentifiedImageError:
        raise MediaRefusal(f"found no readable image of the formats {', '.join(FORMATS)}") from None
    width, height = image.size
    if width < 1 or height < 1:
        raise MediaRefusal(f"found {width} x {height} pixels, expected at least one")
    if width * height > limits.max_pixels:
        raise MediaRefusal(
            f"found {width} x {height} pixels, expected at most {limits.max_pixels}; raise max_pixels to "
            "permit it"
        )
    _refuse_misread(image)
    return image


def _refuse_misread(image: "Image.Image") -> None:
    """Refuse what Pillow (12.3) gives other values than the file has, without a word."""
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
    """Refuse a TIFF with fewer strips than its rows take (TIFF 6.0, section 3): Pillow gives zeros for the rest."""
    strips, rows = tags.get(STRIP_OFFSETS_TAG), tags.get(IMAGE_LENGTH_TAG)
    if strips is None or rows is None:  # of tiles
        return
    rows_per_strip = min(max(1, tags.get(ROWS_PER_STRIP_TAG, rows)), max(1, rows))
    planes = len(tags.get(BITS_TAG, (1,))) if tags.get(PLANAR_TAG) == SEPARATE_PLANES else 1
    expected = -(-rows // rows_per_strip) * planes
    if len(strips) < expected:
        raise MediaRefusal(f"truncated: its {rows} rows take {expected} strips, found {len(strips)}")


def _read_orientation(image: "Image.Image") -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFFs itself, and gives their upright size from the start
    try:
        # Not image.getexif(): that of a PNG decodes the pixels to look behind them.
        value = _import_pillow().Image.getexif(image).get(ORIENTATION_TAG, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _upright_size(image: "Image.Image") -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _read_orientation(image) in SWAPPING_ORIENTATIONS else (width, height)


def _convert_to_rgb(image: "Image.Image", pixels: "Image.Image | None" = None) -> "Image.Image":
    """Return the image, or its `pixels` that have been decoded already, upright and in RGB."""
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
        # Pillow scales the grey values of a PPM to 0..65535. 257 * 255 is 65535, and 128 rounds.
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
        rgb = image.convert("RGB")  # a copy even if it was RGB
    rgb = rgb if turn is None else rgb.transpose(turn)
    rgb.info = {}  # nobody must find the orientation there and apply it again
    return rgb
