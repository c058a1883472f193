"""Manifests: any row of any length of file, indexes that never lie, and the language of prompts."""

import gzip
import json
import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import kebyt5_xm.data.tables.json_lines as json_lines
from kebyt5_xm.data.media.bad_sample import BadSample, RowError
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.sources.template import MediaSegment, Template
from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import ThresholdF1

ROWS = [{"image": f"{i}.png", "text": f"그림 {i}\n", "number": i} for i in range(313)]

# Longer than what is hashed at each end of a manifest.
LONG = [*({**row, "text": str(row) * 20} for row in ROWS[:-1]), ROWS[-1]]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lines_of(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path: Path, rows=ROWS) -> Path:
    raw = lines_of(rows)
    if path.suffix == ".gz":
        raw = gzip.compress(raw)
    elif path.suffix == ".zst":
        half = len(raw) // 2  # two frames, as tools that append write them
        raw = zstandard.compress(raw[:half]) + zstandard.compress(raw[half:])
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=97)
    else:
        path.write_bytes(raw)
    return path


NAMES = ["a.jsonl", "a.NDJSON", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"]


def made_from(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.is_file() and p.name != path.name)


@pytest.mark.parametrize("name", NAMES)
def test_any_row_of_any_kind_of_manifest(tmp_path, name):
    path = write(tmp_path / name)
    for _ in range(2):
        rows = open_rows(path)
        assert len(rows) == len(ROWS)
        assert rows.columns == ("image", "text", "number")
        for index in (0, 312, 128, 5, 127, 200):
            assert rows.row(index) == ROWS[index]
            assert rows.line(index) == index + 1
        for index in (-1, 313):
            with pytest.raises(IndexError):
                rows.row(index)
        assert len(made_from(path)) == 1
    copy = pickle.loads(pickle.dumps(rows))
    assert (len(copy), copy.row(17), copy.fingerprint) == (313, ROWS[17], rows.fingerprint)


def test_an_index_is_used_until_the_manifest_changes(tmp_path, monkeypatch):
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        path = write(tmp_path / name, LONG)
        before = open_rows(path)
        (derived,) = (tmp_path / file for file in made_from(path) if file.startswith(name))
        made = derived.stat().st_mtime_ns, derived.stat().st_ino

        assert open_rows(path).fingerprint == before.fingerprint
        assert (derived.stat().st_mtime_ns, derived.stat().st_ino) == made

        # Size and time may stay as they were; the ends of the file tell.
        time = path.stat().st_mtime_ns
        changed = [*LONG[:-1], {**ROWS[-1], "text": "그림 X99\n"}]
        write(path, changed)
        os.utime(path, ns=(time, time))
        after = open_rows(path)
        assert after.row(312)["text"] == "그림 X99\n"
        assert after.fingerprint != before.fingerprint
        assert before.row(200) == LONG[200]  # whoever has it open keeps what it was opened with

        # A damaged index is made again.
        raw = derived.read_bytes()
        for damaged in (raw[:-8], raw[:3000], b"", b"[]" + raw[2:], b"\xff" * 5000):
            derived.unlink()
            derived.write_bytes(damaged)
            assert open_rows(path).row(311) == LONG[311]
        for file in tmp_path.iterdir():
            if file.is_file():
                file.unlink()


def test_the_fingerprint_is_of_the_content(tmp_path):
    prints = {open_rows(write(tmp_path / name)).fingerprint for name in NAMES if "parquet" not in name}
    (tmp_path / "elsewhere").mkdir()
    prints.add(open_rows(write(tmp_path / "elsewhere" / "b.jsonl")).fingerprint)
    assert len(prints) == 1
    middle = [*ROWS[:150], {**ROWS[150], "text": "다름"}, *ROWS[151:]]
    assert open_rows(write(tmp_path / "c.jsonl", middle)).fingerprint not in prints


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_where_the_folder_cannot_be_written_the_cache_is_used(tmp_path, cache, name, monkeypatch):
    folder = tmp_path / "shared"
    folder.mkdir()
    path = write(folder / name)
    for suffix in (".index", ".rows"):
        (folder / (name + suffix)).mkdir()  # nothing can be renamed to a folder, whoever one is
    rows = open_rows(path)
    assert rows.row(300) == ROWS[300]
    (made,) = cache.iterdir()
    assert made.name.startswith(tuple("0123456789abcdef"))
    assert made_from(path) == []
    identity = made.stat().st_ino
    assert open_rows(path).row(5) == ROWS[5]
    assert made.stat().st_ino == identity

    nowhere = tmp_path / "a file"
    nowhere.write_bytes(b"")
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(nowhere))
    if name == "a.jsonl":
        assert open_rows(path).row(300) == ROWS[300]  # in memory
    else:
        with pytest.raises(UserError, match="KEBYT5_XM_CACHE"):
            open_rows(path)


def test_a_full_disk_leaves_nothing_half_made(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "a.jsonl.gz")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        open_rows(path)
    assert made_from(path) == []
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("block", [3, 7, 1 << 20])
def test_blank_lines_long_lines_and_marks_at_every_block_edge(tmp_path, monkeypatch, block):
    monkeypatch.setattr("kebyt5_xm.data.text.blocks.BLOCK_BYTES", block)
    raw = b'\xef\xbb\xbf{"a": 1}\r\n\n \t\n{"a": 2}\n{"a": "' + b"x" * 50 + b'"}\n\n\n{"a": 4}'
    values, numbers = [1, 2, "x" * 50, 4], [1, 4, 5, 8]
    for name, content in (("a.jsonl", raw), ("a.jsonl.gz", gzip.compress(raw)), ("b.jsonl", raw + b"\n \n")):
        (tmp_path / name).write_bytes(content)
        rows = open_rows(tmp_path / name)
        assert [rows.row(i)["a"] for i in range(len(rows))] == values
        assert [rows.line(i) for i in range(len(rows))] == numbers


@given(lines=st.lists(st.text(st.sampled_from("{}\t \r가a1"), max_size=5), max_size=12), end=st.booleans())
def test_the_index_finds_the_lines_that_are_not_blank(tmp_path_factory, lines, end):
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    text = "\n".join(lines) + ("\n" if end else "")
    path.write_bytes(text.encode())
    expected = [number for number, line in enumerate(text.split("\n"), 1) if line.strip(" \t\r")]
    rows = json_lines.JsonLines(path)
    assert [rows.line(index) for index in range(len(rows))] == expected
    for index, number in enumerate(expected):
        try:
            assert rows.row(index) == {}
        except RowError as error:
            found = error.line
        else:
            found = number
        assert found == number


def test_bad_rows_are_named_by_their_line_and_harm_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    bad = {
        2: (b'{"a": ', "not JSON: Expecting value at character 7"),
        3: (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 7"),
        4: (b'{"a": "\0"}', "Invalid control character"),
        5: (b"[1, 2]", "found a JSON list, expected an object"),
        6: (b'{"a": nan}', "not JSON: Expecting value"),
        7: (b"[" * 100_000, "nested too deeply|Expecting value"),
        8: (b'{"a": ' + b"9" * 5000 + b"}", "whole number of more than 4300 digits"),
        9: (b'{"a": "' + b"x" * 20_000 + b'"}', "expected at most 19999"),
        10: (b"\0\0\0", "not JSON"),
    }
    good = b'{"a": "b"}\n'
    path.write_bytes(good + b"".join(raw + b"\n" for raw, _ in bad.values()) + good)
    rows = open_rows(path)
    assert rows.row(0) == rows.row(len(rows) - 1) == {"a": "b"}
    assert rows.columns == ("a",)
    for line, (raw, words) in bad.items():
        monkeypatch.setattr(json_lines, "MAX_ROW_BYTES", 19_999 if line == 9 else 200_000)
        with pytest.raises(RowError, match=words) as caught:
            rows.row(line - 1)
        assert (caught.value.line, caught.value.path) == (line, str(path)), raw[:20]
        assert f"line {line} of {path}" in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (copy.line, str(copy)) == (line, str(caught.value))


def test_manifests_that_are_refused(tmp_path):
    whole = lines_of(ROWS)
    for name, raw, words in [
        ("a.csv", whole, r"a\.csv.*\.jsonl.*\.parquet"),
        ("a.gz", whole, r"a\.gz.*expected a name"),
        ("a.parquet.gz", whole, "expected a name"),
        ("a.jsonl", b"", "no rows"),
        ("a.json", b"\n \n", "no rows"),
        ("a.jsonl.gz", gzip.compress(whole)[:-9], "get it again"),
        ("a.jsonl.gz", whole, "get it again"),
        ("gz.jsonl", gzip.compress(whole), "compressed by gzip"),
        ("a.jsonl.zst", zstandard.compress(whole)[:-9], "get it again"),
        ("a.parquet", whole, "get it again"),
        ("a.parquet", (write(tmp_path / "b.parquet")).read_bytes()[:-20], "get it again"),
    ]:
        path = tmp_path / name
        path.write_bytes(raw)
        with pytest.raises(UserError, match=words) as caught:
            open_rows(path)
        assert name in str(caught.value)
    (tmp_path / "d.jsonl").mkdir()
    for name in ("d.jsonl", "absent.jsonl"):
        with pytest.raises(UserError, match=f"no manifest at .*{name}"):
            open_rows(tmp_path / name)
    (tmp_path / "e.jsonl").write_bytes(b"{'a': 1}\n" * 5)
    with pytest.raises(UserError, match=r"line 1 of .*e\.jsonl"):
        _ = open_rows(tmp_path / "e.jsonl").columns


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_a_number_in_parquet_is_written_as_it_was_given(tmp_path, kind):
    pq.write_table(pa.table({"a": pa.array([0.1, None, 2.5]).cast(kind)}), tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet")
    assert [str(rows.row(index)["a"]) for index in range(3)] == ["0.1", "None", "2.5"]


def test_parquet_with_lists_images_and_categories(tmp_path):
    rows = [
        {"images": [f"{i}.png", "b.png"], "embedded": {"bytes": b"\x89" * i, "path": None}}
        for i in range(290)
    ]
    table = pa.Table.from_pylist(rows)
    kinds = pa.array(["개" if i % 3 else None for i in range(290)]).dictionary_encode()
    path = tmp_path / "a.parquet"
    pq.write_table(table.append_column("kind", kinds), path, row_group_size=131)
    opened = open_rows(path)
    for index in (0, 1, 127, 128, 131, 289):
        assert opened.row(index) == {**rows[index], "kind": "개" if index % 3 else None}


# --- the language of prompts


def test_a_template_renders_text_and_slots():
    template = Template("{a:image}{{{b}}}\n설명: {images:image}{voice:audio}{b}{c}{voice}")
    assert template.columns == ("a", "b", "images", "voice", "c")
    assert template.modalities == ("image", "audio")
    template.check(["a", "b", "c", "images", "voice", "more"], ["audio", "image"])
    row = {"a": "x/가.png", "b": 7, "images": ["1.png", "2.png"], "voice": "v.wav", "c": "", "more": None}
    assert template.render(row) == [
        MediaSegment("image", "x/가.png"),
        "{7}\n설명: ",
        MediaSegment("image", "1.png"),
        MediaSegment("image", "2.png"),
        MediaSegment("audio", "v.wav"),
        "7v.wav",
    ]
    assert Template("").render({}) == []
    assert Template("{a b.c-가}").render({"a b.c-가": True}) == ["True"]
    assert Template("{x}").render({"x": "{y} {{ }"}) == ["{y} {{ }"]  # a value is never parsed
    for value in ({"bytes": b"\x89", "path": "a.png"}, b"\x89", [{"bytes": b"\x89", "path": None}]):
        assert Template("{x:image}").render({"x": value}) == [MediaSegment("image", b"\x89")]
    assert Template("{x:image}").render({"x": {"bytes": None, "path": "a.png"}}) == [
        MediaSegment("image", "a.png")
    ]


@given(st.text())
def test_any_text_can_be_said(text):
    escaped = text.replace("{", "{{").replace("}", "}}")
    assert Template(escaped).render({}) == ([text] if text else [])


@pytest.mark.parametrize(
    "text", ["{", "}", "a{b", "a}b", "{}", "{:image}", "{a:}", "{a:b:c}", "{{a}", "{a}}", "{a{b}}", "{{}}}"]
)
def test_a_stray_brace_is_refused(text):
    with pytest.raises(UserError, match=r"\{column:modality\}"):
        Template(text)


def test_unknown_names_are_refused_with_a_suggestion():
    template = Template("{image_pth:imge}")
    with pytest.raises(
        UserError, match=r"column 'image_pth'.*caption, image_path.*did you mean 'image_path'"
    ):
        template.check(["image_path", "caption"], ["image"])
    with pytest.raises(UserError, match=r"modality 'imge'.*did you mean 'image'"):
        template.check(["image_pth"], ["image", "audio"])
    with pytest.raises(UserError, match=r"modality 'imge'.*there is no modality"):
        template.check(["image_pth"], [])


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        ("{a}", {"aa": 1}, "no column 'a'"),
        ("{a}", {"a": None}, "'a' is null"),
        ("{a:image}", {"a": None}, "'a' is null"),
        ("{a}", {"a": ["b"]}, "is a list, expected text"),
        ("{a}", {"a": {"b": 1}}, "is a dict, expected text"),
        ("{a}", {"a": b"\xff"}, "is bytes that are not UTF-8, expected text"),
        ("{a}", {"a": float("nan")}, "is nan, expected text or a finite number"),
        ("{a}", {"a": json.loads("1e400")}, "is inf, expected text or a finite number"),
        ("{a}", {"a": json.loads('"\\ud83d"')}, "lone surrogate"),
        ("{a:image}", {"a": []}, "empty list"),
        ("{a:image}", {"a": ["b.png", None]}, "is 'None', expected the path"),
        ("{a:image}", {"a": 5}, "is '5', expected the path"),
        ("{a:image}", {"a": ""}, "expected the path"),
        ("{a:image}", {"a": {"bytes": None, "path": None}}, "expected the path"),
    ],
)
def test_a_row_without_what_the_prompt_needs_is_a_bad_sample(text, row, words):
    with pytest.raises(BadSample, match=words):
        Template(text).render(row)


def test_every_held_out_row_that_is_used_is_checked_for_metrics(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    scores = [*(["1"] * 1200), *(["4"] * 200)]
    path.write_text("".join(json.dumps({"text": "a", "score": score}) + "\n" for score in scores))
    arguments = {"prompt": "{text}", "target": "{score}", "validation": str(path)}
    metrics = [ThresholdF1(3)]
    Manifest(str(path), metrics=metrics, max_validation_examples=1400, **arguments)
    with pytest.raises(UserError, match="no reference of at least 3"):
        Manifest(str(path), metrics=metrics, max_validation_examples=1200, **arguments)
