"""Arrays, and the rules that apply to all media: what may be opened, and how errors reach the user."""

import io
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from image_cases import HEIGHT, WIDTH, encode, make_image
from recording_cases import encode_with_libsndfile

from kebyt5_xm.data.media.opening import (
    MediaError,
    RemoteUrl,
    open_array,
    open_image,
    open_media,
    read_header,
    resolve,
)
from kebyt5_xm.encoder import ArrayHeader, ImageHeader
from kebyt5_xm.errors import UserError


def encode_npy(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def test_arrays(tmp_path):
    values = np.arange(35, dtype=np.float32).reshape(5, 7) - 17
    for dtype in (np.float16, np.float32, np.float64, ">f4", np.int16, np.int64):
        for array in (values.astype(dtype), np.asfortranarray(values.astype(dtype))):
            assert np.array_equal(open_array(encode_npy(array)), values)
        if dtype != ">f4":
            raw = safetensors.numpy.save({"features": values.astype(dtype)}, {"made": "here"})
            assert np.array_equal(open_array(raw), values)
    halves = safetensors.torch.save({"x": torch.tensor(values, dtype=torch.bfloat16)})
    assert np.array_equal(open_array(halves), values)
    path = tmp_path / "features.npy"
    path.write_bytes(encode_npy(values))
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
        (encode_npy(np.array([{}], dtype=object), allow_pickle=True), "type object"),
        (encode_npy(values.astype(np.complex64)), "complex64"),
        (encode_npy(np.array(3.0)), r"shape \(\)"),
        (encode_npy(values[:0]), r"shape \(0, 7\)"),
        (huge.getvalue(), f"{2**40} values, expected at most 64000000"),
        (lying.getvalue() + bytes(50), "truncated"),
        (encode_npy(values)[:-1], "truncated"),
        (safetensors.numpy.save({"x": values})[:-1], "truncated"),
        (safetensors.numpy.save({"x": values, "y": values}), "2 tensors"),
        (safetensors.numpy.save({"x": values > 0}), "type BOOL"),
        (encode_npy(values) + encode_npy(values), "268 bytes behind the values"),
        (safetensors.numpy.save({"x": values}) + b"\0", "1 bytes behind the values"),
        (npz.getvalue(), r"found a \.npz"),
        (torch_file.getvalue(), r"file of torch\.save"),
        (encode_npy(values.astype("datetime64[s]")), "datetime64"),
        (encode_npy(values.astype("S3")), "type .S3"),
        (encode_npy(np.zeros(3, dtype=[("a", "<f4"), ("b", "<i2")])), "type"),
        (encode_npy(values.astype(bool)), "type bool"),
        (encode_npy(np.zeros(7, "V2")), "type .V2"),  # how numpy saves bfloat16
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
            open_array(encode_npy(array))


# --- what may be opened


def test_references_stay_in_the_manifests_folder(tmp_path):
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


def test_only_an_allowed_url_reaches_fsspec():
    import fsspec

    fsspec.filesystem("memory").pipe_file("/test-media/a.png", encode(make_image(), "PNG"))
    url = "memory://test-media/a.png"
    assert open_image(RemoteUrl(url)).size == (WIDTH, HEIGHT)
    assert read_header(RemoteUrl(url), "image") == ImageHeader(WIDTH, HEIGHT)
    with pytest.raises(MediaError, match="no such file"):
        open_image(url)
    with pytest.raises(MediaError, match=r"memory://test-media/b\.png: there is no such file"):
        open_image(RemoteUrl("memory://test-media/b.png"))


def test_pipes_and_folders_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("pipe", "pipe"), ("", "folder"), ("absent", "no such file")]:
        for media in ("image", "audio", "array"):
            with pytest.raises(MediaError, match=words) as caught:
                open_media(tmp_path / name, media)
            assert caught.value.path == str(tmp_path / name)


def test_a_media_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(MediaError("a.png", "broken")))
    assert (error.path, error.cause, str(error)) == ("a.png", "broken", "cannot use a.png: broken")
    assert isinstance(error, UserError)


def test_a_missing_library_names_the_extra(monkeypatch):
    files = [("image", encode(make_image(), "PNG")), ("audio", encode_with_libsndfile("WAV", "PCM_16"))]
    files += [
        ("audio", encode_with_libsndfile(format, subtype))
        for format, subtype in (("MP3", "MPEG_LAYER_III"), ("FLAC", "PCM_16"))
    ]
    for library in ("PIL", "soundfile", "av"):
        monkeypatch.setitem(sys.modules, library, None)
    for media, raw in files:
        with pytest.raises(UserError, match=rf"kebyt5-xm\[{media}\]") as caught:
            open_media(raw, media)
        assert not isinstance(caught.value, MediaError)


def test_libraries_are_imported_only_when_needed():
    import subprocess

    code = (
        "import sys, kebyt5_xm.data.media.opening as media;"
        "bad = {'torch', 'PIL', 'soundfile', 'fsspec', 'safetensors'} & set(sys.modules);"
        "assert not bad, bad"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True
    )
