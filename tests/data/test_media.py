"""Media: every common file comes out right, every bad one as a `MediaError`, and the header never lies."""

import copy
import io
import os
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import soundfile
import torch
from PIL import Image

from kebyt5_xm.data.media.opening import (
    Limits,
    MediaError,
    RemoteUrl,
    as_mono,
    as_rgb,
    open_array,
    open_audio,
    open_image,
    open_media,
    read_audio_header,
    read_header,
    resolve,
)
from kebyt5_xm.data.media.reference import FileSpan
from kebyt5_xm.encoder import ArrayHeader, AudioHeader, ImageHeader
from kebyt5_xm.errors import UserError

WIDTH, HEIGHT = 23, 17


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Smooth, so that lossy formats keep it, and with four different corners."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    values = np.stack([10 * x, 13 * y, 5 * (x + y)], axis=2)
    return Image.fromarray(values.astype(np.uint8))


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image).astype(int)


# --- images


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
def test_common_formats_whatever_the_extension_and_no_half_files(picture, tmp_path, format, options):
    raw = encoded(picture, format, **options)
    path = tmp_path / "misnamed.gif"
    path.write_bytes(raw)
    tolerance = 0 if format in ("PNG", "BMP", "PPM", "TIFF", "WEBP") else 12
    for source in (path, str(path), raw, io.BytesIO(raw)):
        assert abs(pixels(open_image(source)) - pixels(picture)).max() <= tolerance
        assert read_header(source, "image") == ImageHeader(WIDTH, HEIGHT)
    for share in (0.0, 0.1, 0.4, 0.6):
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(MediaError, match=r"misnamed\.gif: \S"):
            open_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_the_header_knows(picture, format, orientation):
    upright = pixels(picture)
    # Exif 2.32, 4.6.4: where the first row and the first column of what is stored belong.
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
    raw = encoded(Image.fromarray(stored.astype(np.uint8)), format, exif=exif, **options)
    assert read_header(raw, "image") == ImageHeader(WIDTH, HEIGHT)
    image = open_image(raw)
    assert abs(pixels(image) - upright).max() <= (12 if format == "JPEG" else 0)
    assert np.array_equal(pixels(as_rgb(image)), pixels(image))  # never turned twice


def test_every_kind_of_pixel_becomes_rgb(picture):
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 167
    wide = Image.fromarray(grey)
    scaled = np.repeat(np.round(grey / 257.0).astype(int)[..., None], 3, axis=2)
    for format in ("PNG", "TIFF", "PPM", "JPEG2000"):
        assert np.array_equal(pixels(open_image(encoded(wide, format))), scaled), format

    for mode, format in (("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")):
        converted = picture.convert(mode)
        assert np.array_equal(
            pixels(open_image(encoded(converted, format))), pixels(converted.convert("RGB"))
        )

    clear = picture.convert("RGBA")
    clear.putalpha(0)
    assert (pixels(open_image(encoded(clear, "PNG"))) == 255).all()
    clear.putalpha(51)
    expected = np.round(255 * 0.8 + pixels(picture) * 0.2)
    assert abs(pixels(open_image(encoded(clear, "WEBP", lossless=True, exact=True))) - expected).max() <= 1
    grey_alpha = Image.merge("LA", [picture.convert("L"), Image.new("L", picture.size, 0)])
    assert (pixels(open_image(encoded(grey_alpha, "PNG"))) == 255).all()
    red = Image.new("P", (WIDTH, HEIGHT), 3)
    red.putpalette([0, 0, 0] * 3 + [255, 0, 0])
    assert (pixels(open_image(encoded(red, "PNG"))) == [255, 0, 0]).all()
    assert (pixels(open_image(encoded(red, "GIF", transparency=3))) == 255).all()

    with pytest.raises(MediaError, match="32-bit"):
        open_image(encoded(Image.fromarray(grey.astype(np.int32)), "TIFF"))
    with pytest.raises(MediaError, match="32-bit"):
        open_image(encoded(Image.fromarray(grey.astype(np.float32)), "TIFF"))


PNG_BEGINNING = b"\x89PNG\r\n\x1a\n"


def chunk_of(chunk: tuple[bytes, bytes]) -> bytes:
    name, data = chunk
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(bits: int, colour: int, transparent: bytes, channels: int) -> bytes:
    """A PNG of zeros, 8 x 1 pixels, of which one colour is transparent."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, colour, 0, 0, 0)),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(b"\0" * (1 + bits * channels))),
        (b"IEND", b""),
    ]
    return PNG_BEGINNING + b"".join(map(chunk_of, chunks))


def test_what_pillow_gives_other_values_is_refused():
    for bits in (1, 8):
        assert (pixels(open_image(png_with(bits, 0, b"\0\0", 1))) == 255).all()
    for bits, colour, transparent, channels in [(2, 0, 2, 1), (4, 0, 2, 1), (16, 0, 2, 1), (16, 2, 6, 3)]:
        with pytest.raises(MediaError, match="transparent colour in a PNG"):
            open_image(png_with(bits, colour, b"\0" * transparent, channels))
    wide = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    raw = encoded(wide, "TIFF")
    entry = struct.pack("<HHI", 262, 3, 1)  # PhotometricInterpretation, a SHORT, one of them
    place = raw.index(entry) + len(entry)
    assert raw[place] == 1, "black is zero"
    for act in (open_image, lambda raw: read_header(raw, "image")):
        with pytest.raises(MediaError, match="white as zero"):
            act(raw[:place] + b"\0" + raw[place + 1 :])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_image_of_several(picture, format):
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("blue", "red", "lime")]
    options = {"lossless": True} if format == "WEBP" else {}
    raw = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (pixels(open_image(raw)) == [0, 0, 255]).all()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose few bytes announce any size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 1000)),
        (b"IEND", b""),
    ]
    return PNG_BEGINNING + b"".join(map(chunk_of, chunks))


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_from_its_header(width, height, monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    for act in (open_image, lambda raw: read_header(raw, "image")):
        with pytest.raises(MediaError, match="pixels"):
            act(png_of(width, height))
    assert read_header(png_of(8000, 8000), "image") == ImageHeader(8000, 8000)
    with pytest.raises(MediaError, match=r"5 x 7 pixels, expected at most 34.*max_pixels"):
        read_header(png_of(5, 7), "image", Limits(max_pixels=34))


def test_other_bad_images(picture, monkeypatch):
    for raw in (
        png_of(0, 5),
        b"",
        b"\0" * 99,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "그림이 아니다".encode(),
    ):
        with pytest.raises(MediaError) as caught:
            open_image(raw)
        assert "\n" not in str(caught.value)
    # Metadata that cannot be read says nothing about the pixels.
    raw = encoded(picture, "PNG", exif=b"Exif\0\0MM\0\x2a\0\0\xff\xff broken")
    assert np.array_equal(pixels(open_image(raw)), pixels(picture))
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


# --- audio

TIME = np.arange(4801) / 16_000
TONE = (0.5 * np.sin(2 * np.pi * 440 * TIME)).astype(np.float32)


def recording(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype=None, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype, **options)
    return buffer.getvalue()


def test_headerless_samples_are_told_by_their_name_alone(tmp_path):
    stored = (TONE * 32767).astype("<i2")
    path = tmp_path / "KsponSpeech_000001.pcm"
    tar = tmp_path / "shard"
    tar.write_bytes(b"\0" * 11 + stored.tobytes())
    span = FileSpan(str(tar), 11, stored.nbytes, "a/000001.pcm")
    for odd in (b"", b"\x7f"):  # half a sample is none
        path.write_bytes(stored.tobytes() + odd)
        for source in (path, str(path), RemoteUrl(path.as_uri()), span):
            waveform, rate = open_audio(source)
            assert (waveform.dtype, rate) == (np.float32, 16_000)
            assert np.array_equal(waveform, stored.astype(np.float32) / 32768)
            assert read_header(source, "audio") == AudioHeader(len(TONE), 16_000)
    unnamed = (
        stored.tobytes(),
        io.BytesIO(stored.tobytes()),
        path.rename(tmp_path / "a.raw"),
        FileSpan(str(tar), 11, stored.nbytes, "a"),
    )
    for source in unnamed:
        with pytest.raises(MediaError, match="no readable recording"):
            open_audio(source)


def test_behind_a_link_the_name_in_the_row_counts(tmp_path):
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "ab12").write_bytes(bytes(2 * 1601))
    (tmp_path / "1.pcm").symlink_to("objects/ab12")
    found = resolve(tmp_path, "1.pcm")
    assert found == os.path.join(os.path.realpath(tmp_path), "objects", "ab12")
    for readable in (found, pickle.loads(pickle.dumps(found)), copy.copy(found)):
        assert readable.name == "1.pcm"
        assert len(open_audio(readable)[0]) == 1601


@pytest.mark.parametrize("format", ["WAV", "AIFF", "FLAC", "OGG"])
def test_a_name_that_lies_about_a_header_is_not_believed(tmp_path, format):
    path = tmp_path / "a.PCM"
    path.write_bytes(recording(TONE, 8_000, format=format))
    assert open_audio(path)[1] == 8_000
    assert read_header(path, "audio") == AudioHeader(len(TONE), 8_000)


def test_bad_headerless_samples(tmp_path):
    path = tmp_path / "a.pcm"
    for raw, limit, words in (
        (b"", 1.0, "no samples"),
        (b"x", 1.0, "no samples"),
        (b"xy" * 16_001, 1.0, "1.0 sec"),
    ):
        path.write_bytes(raw)
        for act in (open_audio, read_audio_header):
            with pytest.raises(MediaError, match=rf"a\.pcm: .*{words}"):
                act(path, Limits(max_seconds=limit))


@pytest.mark.parametrize(
    ("format", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 0),
        ("WAVEX", "PCM_24", 1e-6),
        ("AIFF", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.05),
        ("OGG", "OPUS", 0.1),
        ("MP3", None, 0.05),
    ],
)
def test_common_recordings_and_no_half_ones(tmp_path, format, subtype, tolerance):
    raw = recording(np.stack([TONE * 0.5, TONE * 1.5], axis=1), format=format, subtype=subtype)
    path = tmp_path / "misnamed.raw"
    path.write_bytes(raw)
    for source in (path, raw, io.BytesIO(raw)):
        waveform, rate = open_audio(source)
        assert (waveform.dtype, waveform.shape, rate) == (np.float32, TONE.shape, 16_000)
        assert abs(waveform - TONE).mean() <= tolerance
        assert read_header(source, "audio") == AudioHeader(len(TONE), 16_000)
    for share in (0.0, 0.02, 0.5, 0.98):
        path.write_bytes(raw[: int(len(raw) * share)])
        with pytest.raises(MediaError, match=r"misnamed\.raw: \S"):
            open_audio(path)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_that_was_cut_between_pages_is_refused(subtype):
    noise = np.random.default_rng(5).standard_normal(6 * 48_000).astype(np.float32) / 9
    raw = recording(noise, 48_000, "OGG", subtype)
    assert len(open_audio(raw)[0]) == len(noise)
    pages = [n for n in range(len(raw)) if raw.startswith(b"OggS", n)]
    assert len(pages) > 4
    for cut in pages[3:]:
        with pytest.raises(MediaError, match="truncated: the last page"):
            read_header(raw[:cut], "audio")


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000, 96_000])
def test_the_rate_is_kept(rate):
    waveform, found = open_audio(recording(TONE, rate))
    assert (len(waveform), found) == (len(TONE), rate)


def test_recordings_that_are_refused():
    silence = np.zeros(31, dtype=np.float32)
    assert not open_audio(recording(silence))[0].any()  # silence is a recording
    broken = TONE.copy()
    for value in (np.nan, np.inf):
        broken[17] = value
        with pytest.raises(MediaError, match="NaN or infinite"):
            open_audio(recording(broken, subtype="FLOAT"))
    for raw, words in [
        (recording(TONE[:0]), "no samples"),
        (recording(TONE, 4000), "4000 Hz"),
        (recording(TONE, 384_000), "384000 Hz"),
        (recording(TONE, format="SVX"), "no readable recording"),
        (b"", "no readable recording"),
        (b"RIFF" + b"\xff" * 40, "no readable recording"),
        (b"\0" * 1000, "no readable recording"),
        (recording(TONE, format="AIFF")[:44], "truncated: found no chunk of samples"),
        (recording(TONE)[:20], "truncated: found no chunk of samples"),
    ]:
        for act in (open_audio, lambda raw: read_header(raw, "audio")):
            with pytest.raises(MediaError, match=words):
                act(raw)


def test_a_long_recording_is_refused_from_its_header(monkeypatch):
    hour = recording(np.zeros(8000 * 601, dtype=np.int16), 8000, "FLAC")
    assert len(hour) < 30_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    for act in (open_audio, lambda raw: read_header(raw, "audio")):
        with pytest.raises(MediaError, match=r"601\.0 seconds, expected at most 600.*max_seconds"):
            act(hour)
    assert read_header(hour, "audio", Limits(max_seconds=601)).num_samples == 8000 * 601


def test_a_wav_of_a_writer_that_could_not_seek_is_read_to_its_end():
    raw = bytearray(recording(TONE, subtype="PCM_16"))
    at = raw.index(b"data") + 4
    for announced in (0xFFFFFFFF, 0x7FFFF000):
        raw[at : at + 4] = announced.to_bytes(4, "little")
        assert len(open_audio(bytes(raw))[0]) == len(TONE)
    raw[at : at + 4] = (2 * len(TONE) + 2).to_bytes(4, "little")
    with pytest.raises(MediaError, match="truncated"):
        open_audio(bytes(raw))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("rate", "channels", "frame_samples"), [(16_000, 1, 576), (44_100, 2, 1152)])
def test_an_mp3_without_a_length_is_never_cut(mode, rate, channels, frame_samples):
    """libsndfile alone gives a quarter of such a recording, or refuses it."""
    noise = np.random.default_rng(0).normal(0, 0.2, 20_011)
    samples = np.concatenate([np.tile(TONE, 5), noise, np.zeros(30_013)])
    raw = recording(
        np.stack([samples] * channels, axis=1), rate, "MP3", bitrate_mode=mode, compression_level=0.5
    )
    whole, _ = open_audio(raw)
    assert len(whole) == len(samples)
    bare = raw[raw.index(raw[:2], 4) :]  # without the first frame, which holds the length
    for source in (bare, b"ID3\x04\0\0\0\0\x02\x01" + bytes(257) + bare, bare + b"TAG" + bytes(125)):
        waveform, found = open_audio(source)
        assert found == rate
        assert read_header(source, "audio") == AudioHeader(len(waveform), rate)
        assert 0 <= len(waveform) - len(samples) < 3 * 1152
        # The decoder's 529 samples are dropped, the encoder's padding in front (576 more) is not known.
        np.testing.assert_allclose(waveform[576:70_000], whole[: 70_000 - 576], atol=1e-4)
    assert len(open_audio(raw + raw)[0]) >= 2 * len(samples)  # joined: the first part's length is not all
    for damaged, words in [
        (bare[:-7], "truncated"),
        (bare[:3000] + b"xx" + bare[3000:], "damaged"),
        (b"junk" + bare, "damaged|no readable recording"),
    ]:
        with pytest.raises(MediaError, match=words):
            read_header(damaged, "audio")
    with pytest.raises(MediaError, match="longer than max_seconds"):
        read_header(bare, "audio", Limits(max_seconds=1.0))


def test_a_waveform_in_memory():
    both = np.stack([TONE, 3 * TONE], axis=1).astype(np.float64)
    tensor = torch.from_numpy(both.T.copy()).requires_grad_()
    for samples in (both, both.T, tensor, tensor.bfloat16(), torch.from_numpy(both), both.astype(np.float16)):
        waveform, rate = as_mono(samples, np.int64(16_000))
        assert (waveform.dtype, waveform.shape, rate, type(rate)) == (np.float32, TONE.shape, 16_000, int)
        np.testing.assert_allclose(waveform, 2 * TONE, atol=0.02)
    for samples in (TONE, TONE[None], TONE[:, None], torch.from_numpy(TONE)[None], TONE.tolist()):
        assert np.array_equal(as_mono(samples, 16_000.0)[0], TONE)
    for samples, words in [
        (TONE[:0], "no samples"),
        (np.zeros((1, 0), dtype=np.float32), "no samples"),
        (np.array([0.1, np.nan], dtype=np.float32), "NaN"),
        (np.arange(5), "int64 of shape"),
        (torch.zeros(5, dtype=torch.int16), r"int16 of shape .*divide by 32768"),
        (TONE > 0, "bool of shape"),
        (TONE + 0j, "complex64 of shape"),
        (TONE.astype(np.uint8), "uint8 of shape"),
        (np.array(["a"]), "of shape"),
        (np.array(0.5), r"shape \[\]"),
        (np.zeros((2, 3, 5), dtype=np.float32), r"shape \[2, 3, 5\]"),
        (np.zeros((7, 5), dtype=np.float32), r"shape \[7, 5\]"),
        (np.zeros((80, 997), dtype=np.float32), r"shape \[80, 997\]"),
        ([[0.1], [0.1, 0.2]], "recording"),
    ]:
        with pytest.raises(MediaError, match=words) as caught:
            as_mono(samples, 16_000)
        assert "\n" not in str(caught.value)
    for rate, words in [
        (50, "50 Hz"),
        (22_050.5, "whole number"),
        ("x", "whole number"),
        (None, "whole number"),
    ]:
        with pytest.raises(MediaError, match=words):
            as_mono(TONE, rate)


# --- arrays


def npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_arrays(tmp_path):
    values = np.arange(35, dtype=np.float32).reshape(5, 7) - 17
    for dtype in (np.float16, np.float32, np.float64, ">f4", np.int16, np.int64):
        for array in (values.astype(dtype), np.asfortranarray(values.astype(dtype))):
            assert np.array_equal(open_array(npy(array)), values)
        if dtype != ">f4":
            raw = safetensors.numpy.save({"features": values.astype(dtype)}, {"made": "here"})
            assert np.array_equal(open_array(raw), values)
    halves = safetensors.torch.save({"x": torch.tensor(values, dtype=torch.bfloat16)})
    assert np.array_equal(open_array(halves), values)
    path = tmp_path / "features.npy"
    path.write_bytes(npy(values))
    assert open_array(path).dtype == np.float32
    for source in (path, halves):
        assert read_header(source, "array") == ArrayHeader((5, 7))


def test_arrays_that_are_refused():
    values = np.ones((5, 7), dtype=np.float32)
    bad = values.copy()
    bad[3, 5] = np.nan
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    lying = io.BytesIO()
    np.lib.format.write_array_header_1_0(lying, {"descr": "<f4", "fortran_order": False, "shape": (99, 7)})
    npz, torch_file = io.BytesIO(), io.BytesIO()
    np.savez(npz, values)
    torch.save(torch.tensor(values), torch_file)
    for raw, words in [
        (npy(np.array([{}], dtype=object), allow_pickle=True), "type object"),
        (npy(values.astype(np.complex64)), "complex64"),
        (npy(np.array(3.0)), r"shape \(\)"),
        (npy(values[:0]), r"shape \(0, 7\)"),
        (huge.getvalue(), f"{2**40} values, expected at most 64000000"),
        (lying.getvalue() + bytes(50), "truncated"),
        (npy(values)[:-1], "truncated"),
        (safetensors.numpy.save({"x": values})[:-1], "truncated"),
        (safetensors.numpy.save({"x": values, "y": values}), "2 tensors"),
        (safetensors.numpy.save({"x": values > 0}), "type BOOL"),
        (npy(values) + npy(values), "268 bytes behind the values"),
        (safetensors.numpy.save({"x": values}) + b"\0", "1 bytes behind the values"),
        (npz.getvalue(), r"found a \.npz"),
        (torch_file.getvalue(), r"file of torch\.save"),
        (npy(values.astype("datetime64[s]")), "datetime64"),
        (npy(values.astype("S3")), "type .S3"),
        (npy(np.zeros(3, dtype=[("a", "<f4"), ("b", "<i2")])), "type"),
        (npy(values.astype(bool)), "type bool"),
        (npy(np.zeros(7, "V2")), "type .V2"),  # how numpy saves bfloat16
        (safetensors.torch.save({"x": torch.ones(5, 7).to(torch.float8_e4m3fn)}), "F8_E4M3"),
        (safetensors.numpy.save({"x": np.array(3.0)}), r"shape \(\)"),
        (safetensors.numpy.save({}), "0 tensors"),
        (b"\xff" * 100, "neither"),
        (b"", "neither"),
        (bytes([2] + [0] * 7) + b"[]", "tensors|TypeError|AttributeError"),
    ]:
        for act in (open_array, lambda raw: read_header(raw, "array")):
            with pytest.raises(MediaError, match=words):
                act(raw)
    for array in (bad, np.full((5, 7), 1e39)):
        with pytest.raises(MediaError, match="NaN, infinite or too large"):
            open_array(npy(array))


# --- what may be opened


def test_references_stay_in_the_folder_of_the_manifest(tmp_path):
    root = tmp_path / "data"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "data2").mkdir()
    outside = tmp_path / "data2" / "a.png"
    for path in (root / "a.png", root / "deep" / "한글 ∷ b.png", outside):
        path.write_bytes(b"x")
    (root / "escape").symlink_to(tmp_path / "data2")
    (root / "inner").symlink_to(root / "deep")
    (tmp_path / "alias").symlink_to(root)

    real = os.path.realpath(root)
    for reference in ("a.png", "deep/../a.png", str(root / "a.png"), "inner/../a.png", "absent.png", "a::b"):
        assert resolve(root, reference) == os.path.join(real, os.path.basename(reference))
        assert resolve(tmp_path / "alias", reference) == os.path.join(real, os.path.basename(reference))
    assert resolve(root, "inner/한글 ∷ b.png") == os.path.join(real, "deep", "한글 ∷ b.png")

    for reference in ("../data2/a.png", "escape/a.png", str(outside), "deep/../../data2/a.png", ".."):
        with pytest.raises(MediaError, match="allow_outside"):
            resolve(root, reference)
        assert resolve(root, reference, allow_outside=True)
    assert resolve(root, "escape/a.png", allow_outside=True) == os.path.realpath(outside)

    for reference in ("", "a\0.png"):
        with pytest.raises(MediaError, match="NUL"):
            resolve(root, reference)


def test_only_an_allowed_url_reaches_fsspec(picture):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/test-media/a.png", encoded(picture, "PNG"))
    url = "memory://test-media/a.png"
    assert open_image(RemoteUrl(url)).size == (WIDTH, HEIGHT)
    assert read_header(RemoteUrl(url), "image") == ImageHeader(WIDTH, HEIGHT)
    with pytest.raises(MediaError, match="no such file"):
        open_image(url)
    with pytest.raises(MediaError, match=r"memory://test-media/b\.png: there is no such file"):
        open_image(RemoteUrl("memory://test-media/b.png"))


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("pipe", "pipe"), ("", "folder"), ("absent", "no such file")]:
        for media in ("image", "audio", "array"):
            with pytest.raises(MediaError, match=words) as caught:
                open_media(tmp_path / name, media)
            assert caught.value.path == str(tmp_path / name)


def test_the_error_survives_the_way_out_of_a_worker():
    error = pickle.loads(pickle.dumps(MediaError("a.png", "broken")))
    assert (error.path, error.cause, str(error)) == ("a.png", "broken", "cannot use a.png: broken")
    assert isinstance(error, UserError)


def test_a_missing_library_names_the_extra(monkeypatch, picture):
    files = [("image", encoded(picture, "PNG")), ("audio", recording(TONE))]
    files += [("audio", recording(TONE, format=format)) for format in ("MP3", "FLAC")]
    for library in ("PIL", "soundfile", "av"):
        monkeypatch.setitem(sys.modules, library, None)
    for media, raw in files:
        with pytest.raises(UserError, match=rf"kebyt5-xm\[{media}\]") as caught:
            open_media(raw, media)
        assert not isinstance(caught.value, MediaError)


def test_nothing_is_imported_before_it_is_needed():
    import subprocess

    code = (
        "import sys, kebyt5_xm.data.media.opening as media;"
        "bad = {'torch', 'PIL', 'soundfile', 'fsspec', 'safetensors'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True
    )
