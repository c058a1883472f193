"""Images: common formats decode to the right pixels, bad files are refused, and the header states the exact size."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_cases import HEIGHT, IMAGES, WIDTH, encode, join_png, make_chunk, make_image
from PIL import Image

from kebyt5_xm.data.media.opening import Limits, MediaError, as_rgb, open_image, read_header
from kebyt5_xm.encoder import ImageHeader


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return make_image()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("MPO", {"quality": 95, "subsampling": 0}),
        ("JPEG2000", {}),
        ("AVIF", {"quality": 95, "subsampling": "4:4:4"}),
    ],
)
def test_common_formats_are_read_by_content_and_truncated_files_refused(image, tmp_path, format, options):
    raw = encode(image, format, **options)
    path = tmp_path / "misnamed.gif"
    path.write_bytes(raw)
    tolerance = 0 if format in ("PNG", "BMP", "PPM", "TIFF", "WEBP") else 12
    for source in (path, str(path), raw, io.BytesIO(raw)):
        assert abs(pixels(open_image(source)) - pixels(image)).max() <= tolerance
        assert read_header(source, "image") == ImageHeader(WIDTH, HEIGHT)
    for share in (0.0, 0.1, 0.4, 0.6):
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(MediaError, match=r"misnamed\.gif: \S"):
            open_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_to_pixels_and_header(image, format, orientation):
    upright = pixels(image)
    # Exif 2.32, 4.6.4: the side on which the first stored row and column belong.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    raw = encode(Image.fromarray(stored.astype(np.uint8)), format, exif=exif, **options)
    assert read_header(raw, "image") == ImageHeader(WIDTH, HEIGHT)
    image = open_image(raw)
    assert abs(pixels(image) - upright).max() <= (12 if format == "JPEG" else 0)
    assert np.array_equal(pixels(as_rgb(image)), pixels(image))  # never rotated twice


def test_every_pixel_format_becomes_rgb(image):
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 167
    wide = Image.fromarray(grey)
    scaled = np.repeat(np.round(grey / 257.0).astype(int)[..., None], 3, axis=2)
    for format in ("PNG", "TIFF", "PPM", "JPEG2000"):
        assert np.array_equal(pixels(open_image(encode(wide, format))), scaled), format

    for mode, format in (("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")):
        converted = image.convert(mode)
        assert np.array_equal(pixels(open_image(encode(converted, format))), pixels(converted.convert("RGB")))

    clear = image.convert("RGBA")
    clear.putalpha(0)
    assert (pixels(open_image(encode(clear, "PNG"))) == 255).all()
    clear.putalpha(51)
    expected = np.round(255 * 0.8 + pixels(image) * 0.2)
    assert abs(pixels(open_image(encode(clear, "WEBP", lossless=True, exact=True))) - expected).max() <= 1
    grey_alpha = Image.merge("LA", [image.convert("L"), Image.new("L", image.size, 0)])
    assert (pixels(open_image(encode(grey_alpha, "PNG"))) == 255).all()
    red = Image.new("P", (WIDTH, HEIGHT), 3)
    red.putpalette([0, 0, 0] * 3 + [255, 0, 0])
    assert (pixels(open_image(encode(red, "PNG"))) == [255, 0, 0]).all()
    assert (pixels(open_image(encode(red, "GIF", transparency=3))) == 255).all()

    with pytest.raises(MediaError, match="32-bit"):
        open_image(encode(Image.fromarray(grey.astype(np.int32)), "TIFF"))
    with pytest.raises(MediaError, match="32-bit"):
        open_image(encode(Image.fromarray(grey.astype(np.float32)), "TIFF"))


def make_transparent_png(bits: int, colour: int, transparent: bytes, channels: int) -> bytes:
    """Return a PNG of 8 x 1 zeros with one transparent colour."""
    chunks = [
        make_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, colour, 0, 0, 0)),
        make_chunk(b"tRNS", transparent),
        make_chunk(b"IDAT", zlib.compress(b"\0" * (1 + bits * channels))),
        make_chunk(b"IEND", b""),
    ]
    return join_png(*chunks)


def test_files_that_pillow_decodes_wrongly_are_refused():
    for bits in (1, 8):
        assert (pixels(open_image(make_transparent_png(bits, 0, b"\0\0", 1))) == 255).all()
    for bits, colour, transparent, channels in [(2, 0, 2, 1), (4, 0, 2, 1), (16, 0, 2, 1), (16, 2, 6, 3)]:
        with pytest.raises(MediaError, match="transparent colour in a PNG"):
            open_image(make_transparent_png(bits, colour, b"\0" * transparent, channels))
    wide = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    raw = encode(wide, "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)  # PhotometricInterpretation, type SHORT, one value
    place = raw.index(entry) + len(entry)
    assert raw[place] == 1, "black is zero"
    for act in (open_image, lambda raw: read_header(raw, "image")):
        with pytest.raises(MediaError, match="white as zero"):
            act(raw[:place] + b"\0" + raw[place + 1 :])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_only_the_first_of_several_images_is_used(image, format):
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("blue", "red", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    raw = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (pixels(open_image(raw)) == [0, 0, 255]).all()


def make_png_header(width: int, height: int) -> bytes:
    """Return a small PNG that announces any size."""
    chunks = [
        make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        make_chunk(b"IDAT", zlib.compress(b"\0" * 1000)),
        make_chunk(b"IEND", b""),
    ]
    return join_png(*chunks)


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_from_its_header(width, height, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    for act in (open_image, lambda raw: read_header(raw, "image")):
        with pytest.raises(MediaError, match="pixels"):
            act(make_png_header(width, height))
    assert read_header(make_png_header(8000, 8000), "image") == ImageHeader(8000, 8000)
    with pytest.raises(MediaError, match=r"5 x 7 pixels, expected at most 34.*max_pixels"):
        read_header(make_png_header(5, 7), "image", Limits(max_pixels=34))


def test_other_bad_images(image, monkeypatch):
    for raw in (
        make_png_header(0, 5),
        b"",
        b"\0" * 99,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "그림이 아니다".encode(),
    ):
        with pytest.raises(MediaError) as caught:
            open_image(raw)
        assert "\n" not in str(caught.value)
    # Unreadable metadata is ignored.
    raw = encode(image, "PNG", exif=b"Exif\0\0MM\0\x2a\0\0\xff\xff broken")
    assert np.array_equal(pixels(open_image(raw)), pixels(image))
    for error in (
        SyntaxError("broken\nheader"),
        MemoryError(),
        RecursionError("deep"),
        struct.error("short"),
    ):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr(Image, "open", fail)
        with pytest.raises(MediaError, match=type(error).__name__) as caught:
            open_image(raw)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of a truncated TIFF
def test_pixels_are_right_or_the_image_is_refused(name: str) -> None:
    case = IMAGES[name]()
    if case.pixels is None:
        with pytest.raises(MediaError) as caught:
            open_image(case.raw)
        assert str(caught.value).isprintable()
        return
    found = np.asarray(open_image(case.raw))
    assert found.shape == case.pixels.shape
    assert abs(found.astype(int) - case.pixels).max() <= case.tolerance
    assert read_header(case.raw, "image") == ImageHeader(found.shape[1], found.shape[0])
