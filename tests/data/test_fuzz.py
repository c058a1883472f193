"""Over two thousand mutated files: each is read, or refused with its cause in one line; none crashes or hangs."""

import gzip
import io
import json
import math
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy
import soundfile
import zstandard
from fuzzing import EXAMPLES, FUZZ
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from encoders.stems import PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.media.opening import MediaError, open_media, read_header
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(1800, EXAMPLES))]


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, bytes]]:
    """One to five changes: where, as a share of the file, and what; most files say most at their start."""
    place = st.one_of(st.floats(0, 0.1), st.floats(0, 1))
    kind = st.sampled_from(["replace", "insert", "cut", "repeat", "end"])
    special = st.sampled_from(
        [b"\0", b"\n", b'"', b"\xff\xff\xff\xff", b"{", b"\xe3\x81", b"\x7f\xff\xff\xff"]
    )
    data = st.one_of(special, st.binary(min_size=1, max_size=9))
    return draw(st.lists(st.tuples(kind, place, data), min_size=1, max_size=5))


def mutated(raw: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    for kind, place, data in changes:
        at = int(place * len(raw))
        if kind == "replace":
            raw = raw[:at] + data + raw[at + len(data) :]
        elif kind == "insert":
            raw = raw[:at] + data + raw[at:]
        elif kind == "cut":
            raw = raw[:at] + raw[at + 7 * len(data) :]
        elif kind == "repeat":
            raw = raw[:at] + raw[at // 2 :]
        else:
            raw = raw[:at]
    return raw


def image_bytes(format: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_mandelbrot((19, 13), (-2, -1, 1, 1), 20).convert(mode).save(buffer, format)
    return buffer.getvalue()


def audio_bytes(format: str, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    waveform = 0.5 * np.sin(np.arange(1409 * channels) / 7).reshape(-1, channels)
    soundfile.write(buffer, waveform, 16_000, format=format)
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 5), dtype=np.float32))
    return buffer.getvalue()


MEDIA: dict[str, list[Callable[[], bytes]]] = {
    "image": [
        *(
            lambda f=f: image_bytes(f)
            for f in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
        ),
        lambda: image_bytes("JPEG", "CMYK"),
        lambda: image_bytes("PNG", "P"),
    ],
    "audio": [
        *(lambda f=f: audio_bytes(f) for f in ("WAV", "FLAC", "OGG", "MP3", "AIFF")),
        lambda: audio_bytes("WAV", 3),
    ],
    "array": [npy_bytes, lambda: safetensors.numpy.save({"x": np.ones((3, 5), dtype=np.float32)})],
}


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged files
def test_damaged_media_are_what_their_header_says_or_refused(media: str) -> None:
    samples = [make() for make in MEDIA[media]]
    outcomes = {"read": 0, "refused": 0}

    @FUZZ
    @given(number=st.integers(0, len(samples) - 1), changes=mutations())
    def check(number: int, changes: list[tuple[str, float, bytes]]) -> None:
        raw = mutated(samples[number], changes)
        try:
            said = read_header(raw, media)  # pyright: ignore[reportArgumentType]
            item = open_media(raw, media)  # pyright: ignore[reportArgumentType]
        except MediaError as error:
            refused = str(error)
        else:
            refused = None
        if refused is not None:
            assert "\n" not in refused
            outcomes["refused"] += 1
            return
        outcomes["read"] += 1
        if media == "image":
            assert item.size == (said.width, said.height)
            assert item.mode == "RGB"
        elif media == "audio":
            assert (len(item[0]), item[1]) == (said.num_samples, said.sample_rate)
            assert math.isfinite(abs(item[0]).max())
        else:
            assert item.shape == said.shape

    check()
    assert min(outcomes.values()) > EXAMPLES // 100, outcomes


ROWS = [{"picture": f"{n}.png", "caption": f"그림 {n}", "more": [n, None, {"a": "b"}]} for n in range(11)]
LINES = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS)).encode()


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    rows = [{key: row[key] for key in ("picture", "caption")} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _same(raw: bytes) -> bytes:
    return raw


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(len(ROWS)):
            for name, content in (("picture", image_bytes("PNG")), ("txt", f"그림 {number}".encode())):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


MANIFESTS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "x.jsonl": (LINES, _same),
    "x.jsonl.gz": (LINES, gzip.compress),
    "x.jsonl.zst": (LINES, zstandard.compress),
    "x.parquet": (parquet_bytes(), _same),
    "x.tar": (tar_bytes(), _same),
}
"""Each with what compresses it: damage may be on either side of that."""


@pytest.mark.parametrize("name", MANIFESTS)
def test_damaged_manifests_are_counted_row_by_row_or_refused(name: str, tmp_path: Path) -> None:
    for number in range(len(ROWS)):
        (tmp_path / f"{number}.png").write_bytes(image_bytes("PNG"))
    (tmp_path / "3.png").write_bytes(b"broken")
    interfaces = {"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 16)}
    outcomes = {"read": 0, "skipped": 0, "refused": 0}

    @settings(FUZZ, max_examples=max(100, EXAMPLES // 3) if name != "x.jsonl" else EXAMPLES)
    @given(changes=mutations(), before=st.booleans())
    def check(changes: list[tuple[str, float, bytes]], before: bool) -> None:
        for path in tmp_path.glob("x.*"):
            path.unlink()
        raw, compress = MANIFESTS[name]
        damaged = compress(mutated(raw, changes)) if before else mutated(compress(raw), changes)
        (tmp_path / name).write_bytes(damaged)
        try:
            target = "{txt}" if name == "x.tar" else "{caption}"
            source = Manifest(str(tmp_path / name), "{picture:image} 설명: ", target)
            source.connect(interfaces)
            source.prepare(1, lambda _: None)
        except UserError:
            outcomes["refused"] += 1
            return
        rows = np.arange(len(source.rows))
        selection = Selection(np.zeros_like(rows), rows, rows.astype(np.uint64), 0, held_out=False)
        examples, lengths = source.load(selection), source.lengths(selection)
        assert len(examples) == len(rows)
        assert source.impossible() == (int((lengths == 0).all(axis=1).sum()), len(rows))
        for example, length in zip(examples, lengths.tolist(), strict=True):
            if example.skipped is None:
                assert [len(example.input_ids), len(example.target_ids)] == length
                outcomes["read"] += 1
            else:
                assert example.skipped.cause
                assert "\n" not in example.skipped.cause
                assert example.skipped.line > 0
                outcomes["skipped"] += 1

    check()
    assert outcomes["read"], outcomes
    assert outcomes["skipped"], outcomes
    assert outcomes["refused"] or name == "x.jsonl", outcomes
