"""WebDataset shards are read in place, and several files form one table."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
from PIL import Image

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.media.bad_sample import RowError
from kebyt5_xm.data.media.reference import FileSpan, read_contents
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def shard(path: Path, first: int, count: int) -> Path:
    members: dict[str, bytes] = {}
    for n in range(first, first + count):
        members[f"cats/{n:04}.png"] = png(n)
        members[f"cats/{n:04}.txt"] = f"고양이 {n}".encode()
        members[f"cats/{n:04}.json"] = json.dumps({"width": 23, "tags": ["a"]}).encode()
    return write_tar(path, members)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_row_holds_the_files_of_one_key(tmp_path: Path, format: int) -> None:
    long = "d" * 90 + "/" + "a" * 60 if format == tarfile.USTAR_FORMAT else "한" * 150
    members = {
        "__index__.json": b"{}",
        "a/1.PNG": png(1),
        "a/1.txt": "하나".encode(),
        f"{long}.seg.png": b"xyz",
        f"{long}.cls": b"7",
        "b/1.txt": b"",
        "README": b"no extension",
    }
    if format == tarfile.USTAR_FORMAT:
        members.pop("README")
    rows = open_rows(write_tar(tmp_path / "x.tar", members, format))
    assert len(rows) == 3
    assert list(rows.row(0)) == ["__key__", "png", "txt"]
    assert (rows.row(0)["__key__"], rows.row(0)["txt"]) == ("a/1", "하나")
    assert read_contents(rows.row(0)["png"]) == png(1)
    assert rows.row(1)["cls"] == "7"
    assert read_contents(rows.row(1)["seg.png"]) == b"xyz"
    assert rows.row(2) == {"__key__": "b/1", "txt": ""}


def test_a_span_reads_like_a_separate_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    span = FileSpan(str(tmp_path / "x"), 3, 5, "y")
    from kebyt5_xm.data.media.reference import open_readable

    with open_readable(span) as file:
        assert (file.read(2), file.seek(-1, io.SEEK_END), file.read(), file.read()) == (b"34", 4, b"7", b"")
        assert (file.seek(1), file.read(100), file.tell()) == (1, b"4567", 5)


def examples(
    path: object, prompt: str = "{png:image} 설명: ", target: str = "{txt}"
) -> tuple[Manifest, list]:
    source = Manifest(str(path), prompt, target)
    source.connect({"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 16)})
    rows = np.arange(len(source.training))
    return source, source.load(Selection(np.zeros_like(rows), rows, rows.astype(np.uint64), 0, False))


@pytest.mark.parametrize("pattern", ["cats-{0..2}.tar", "cats-*.tar", "cats-[0-2].tar"])
def test_shards_form_one_table_in_the_order_of_their_names(tmp_path: Path, pattern: str) -> None:
    for number, count in enumerate([3, 5, 2]):
        shard(tmp_path / f"cats-{number}.tar", 10 * number, count)
    source, found = examples(tmp_path / pattern)
    captions = [(e.target_ids[:-1] - 3).astype(np.uint8).tobytes().decode() for e in found]
    assert captions == [f"고양이 {n}" for n in (0, 1, 2, 10, 11, 12, 13, 14, 20, 21)]
    alone = [e for n in range(3) for e in examples(tmp_path / f"cats-{n}.tar")[1]]
    assert all(a.media[0].prepared.equal(b.media[0].prepared) for a, b in zip(found, alone, strict=True))
    assert source.training.rows.row(4)["json.width"] == 23
    assert source.place(0, 4) == (str(tmp_path / "cats-1.tar"), 2)
    assert source.impossible() == (0, 10)
    opened_again = pickle.loads(pickle.dumps(source))
    assert opened_again.training.rows.fingerprint == source.training.rows.fingerprint
    shard(tmp_path / "cats-1.tar", 11, 5)
    assert open_rows(tmp_path / pattern).fingerprint != source.training.rows.fingerprint


def test_several_files_of_json_lines_form_one_table(tmp_path: Path) -> None:
    for number in range(17):  # enough files to be indexed in several processes
        tiny_media.write_manifest(tmp_path / f"x-{number:02}.jsonl", [{"n": number}, {"n": -number}])
    rows = open_rows(tmp_path / "x-{00..16}.jsonl")
    assert [rows.row(i)["n"] for i in range(34)] == [sign * n for n in range(17) for sign in (1, -1)]
    with pytest.raises(IndexError):
        rows.row(34)


def test_a_bad_file_in_a_shard_skips_its_example(tmp_path: Path) -> None:
    members = {"1.png": png(1)[:300], "1.txt": b"x", "2.png": png(2), "2.txt": b"\xff", "3.png": png(3)}
    members |= {"4.png": png(4), "4.txt": b"good", "5.png": png(5), "5.txt": b"a", "5.TXT": b"b"}
    _, found = examples(write_tar(tmp_path / "x.tar", members))
    causes = [example.skipped and (example.skipped.line, example.skipped.cause) for example in found]
    path = str(tmp_path / "x.tar")
    assert causes[0] is not None
    assert causes[0][0] == 1
    assert found[0].skipped.path == f"{path}: 1.png"
    assert causes[1] == (2, "2.txt is not UTF-8: invalid start byte at byte 0")
    assert causes[2] == (3, "there is no column 'txt'")
    assert causes[3] is None
    assert causes[4] == (
        5,
        "the key '5' has two files with the same extension: ['png', 'txt', 'txt'], expected one; rename one",
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.json", b"{", "x.json is not JSON"),
        ("x.json", b"[1]", "x.json is a JSON list, expected an object"),
        ("x.json", '{"width": 1}'.encode("utf-16"), "x.json is UTF-16, expected UTF-8: invalid start byte"),
    ],
)
def test_bad_json_in_a_shard_is_refused_on_use(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    rows = open_rows(write_tar(tmp_path / "x.tar", {name: content}))
    with pytest.raises(RowError, match=words):
        rows.row(0)["json.width"]
    assert rows.row(0)["__key__"] == "x"  # other columns stay usable


def test_a_media_file_is_not_text(tmp_path: Path) -> None:
    _, found = examples(shard(tmp_path / "x.tar", 0, 1), prompt="{txt}", target="{png}")
    assert (
        found[0].skipped.cause
        == "column 'png' is a file in a shard, expected text: .txt, .text, .cls or .json"
    )


def test_damaged_shards_and_bad_patterns_are_refused(tmp_path: Path) -> None:
    whole = shard(tmp_path / "x.tar", 0, 3).read_bytes()
    for name, size in (("data", 8704 + 997), ("header", 8192 + 211), ("end", 8192)):
        (tmp_path / f"cut-in-{name}.tar").write_bytes(whole[:size])
    (tmp_path / "no.tar").write_bytes(b"\x1f\x8b" + whole)
    (tmp_path / "empty.tar").write_bytes(b"\0" * 10240)
    cases: list[tuple[Any, str]] = [
        ("cut-in-data.tar", "cannot read .*cut-in-data.tar to its end"),
        ("cut-in-header.tar", "the end mark is missing: it is truncated"),
        ("cut-in-end.tar", "the end mark is missing: it is truncated"),
        ("no.tar", "expected an uncompressed tar file"),
        ("empty.tar", "found no rows"),
        ("none-*.tar", "found no manifest at .*none-"),
        ("x-{3..1}.tar", r"found the range \{3\.\.1\}"),
        ("*/x.tar", "found a pattern in the folder"),
        ("x-{0..1}.tar", "found no manifest at .*x-0.tar"),
    ]
    for name, words in cases:
        with pytest.raises(UserError, match=words):
            open_rows(tmp_path / name)


def test_lengths_of_recordings_in_shards_equal_those_of_plain_files(tmp_path: Path) -> None:
    """A shard's length table is built from the headers of its recordings."""
    tiny_media.write_media(tmp_path)
    members = {}
    for n in range(5):
        members[f"{n}.wav"] = (tmp_path / f"{n}.wav").read_bytes()
        members[f"{n}.txt"] = f"number {n}".encode()
    source = Manifest(str(write_tar(tmp_path / "x.tar", members)), "{wav:speech}", "{txt}")
    speech = interface(LogMelEncoder(out_dim=12, sample_rate=8000, num_mels=17), Linear, 16)
    source.connect({"speech": speech})
    plain = Manifest(str(tmp_path / "speech.jsonl"), "{recording:speech}", "{transcript}")
    plain.connect({"speech": speech})
    rows = np.arange(5)
    selection = Selection(np.zeros_like(rows), rows, rows.astype(np.uint64), 0, False)
    assert source.lengths(selection).tolist() == plain.lengths(selection).tolist()
