"""Tables written by common libraries are read correctly, or refused with a remedy."""

import io
import math
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_cases import REFUSED, TABLES, render_column, write_tar

from kebyt5_xm.data import Manifest
from kebyt5_xm.data.layouts import Delimited, JsonDocuments
from kebyt5_xm.data.media import open_files
from kebyt5_xm.data.media.bad_sample import BadSample, RowError
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.pool import run_jobs
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.template import MediaSegment, Template
from kebyt5_xm.data.tables import arrow_rows
from kebyt5_xm.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_as_written(name: str, tmp_path: Path) -> None:
    for library in ("pandas", "polars", "datasets"):
        if library in name:
            pytest.importorskip(library)
    folder = tmp_path / "made"
    folder.mkdir()
    made = TABLES[name](folder)
    opened = open_rows(made.path, made.layout)
    for table in (opened, open_rows(made.path, made.layout), pickle.loads(pickle.dumps(opened))):
        assert table.fingerprint == opened.fingerprint
        for column, texts in made.columns.items():
            assert column in table.columns
            assert [render_column(table.row(n), column) for n in range(len(table))] == texts, column


@pytest.mark.parametrize("name", REFUSED)
def test_unreadable_tables_are_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    file, content, message = REFUSED[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        _ = open_rows(tmp_path / file).columns
    assert "\n" not in str(caught.value)
    assert file in str(caught.value)


def test_a_bad_value_in_an_unused_column_does_not_matter(tmp_path: Path) -> None:
    columns = {"q": pa.array(["a", "b"]), "day": pa.array([3_000_000, 0], pa.date32())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"q": "a", "day": NaN}\n{"q": "b", "day": 0}\n')
    write_tar(
        tmp_path / "a.tar",
        [("1.q.txt", b"a"), ("1.day.json", b"{"), ("2.q.txt", b"b"), ("2.day.json", b"{}")],
    )
    for name, used, unused in (
        ("a.parquet", "q", "day"),
        ("a.jsonl", "q", "day"),
        ("a.tar", "q.txt", "day.json"),
    ):
        rows = open_rows(tmp_path / name)
        assert [Template(f"{{{used}}}").render(rows.row(n)) for n in (0, 1)] == [["a"], ["b"]]
        with pytest.raises(BadSample) as caught:
            Template(f"{{{unused}}}").render(rows.row(0))
        assert "day" in caught.value.cause
        assert "\n" not in caught.value.cause


def test_two_columns_of_the_same_name_are_refused_on_use(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], names=["x", "x", "y"])
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    row = open_rows(tmp_path / "a.arrow").row(0)
    assert row["y"] == "c"
    with pytest.raises(RowError, match="two columns 'x'"):
        row["x"]


def test_a_row_finds_dotted_names() -> None:
    from kebyt5_xm.data.tables.rows import Row

    values = {"a": {"b": {"c": 1}, "b.d": 2, "e": None}, "a.b": {"x": 3}, "f": "text"}
    row = Row(values, values.__getitem__)
    expected = {"a.b.c": 1, "a.b.d": 2, "a.b.x": 3, "a.e.x.y": None, "a.b": {"x": 3}}
    assert {name: row[name] for name in expected} == expected
    for name in ("a.x", "f.x", "b", "a.", ".a", "f."):
        assert name not in row
    assert (dict(row), len(row), list(row)) == (values, 3, ["a", "a.b", "f"])
    assert pickle.loads(pickle.dumps(row)) == row == values


def test_nan_and_null_are_not_references(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"q": "a", "a": "b", "r": ["x", NaN, null]}\n{"q": "a", "a": "b", "r": NaN}\n'
    )
    path = str(tmp_path / "a.jsonl")
    source = Manifest(path, "{q}", "{a}", references="r", validation=path)
    assert source.references(0, 0) == ("x",)
    with pytest.raises(BadSample, match="no reference"):
        source.references(0, 1)


# --- delimited text


def test_a_header_line_never_becomes_a_row(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text(",text,label\n0,좋다,1\n")
    assert dict(open_rows(file, Delimited(",")).row(0)) == {"text": "좋다", "label": "1"}
    for columns in (["n", "text", "label"], ["index", "Text", "score"]):
        with pytest.raises(UserError, match=r"line 1 .* names the columns itself .*leave `columns` out"):
            open_rows(file, Delimited(",", columns=columns))
    file.write_text("0,좋다,1\n1,label,0\n")  # a word that is a column's name elsewhere
    assert len(open_rows(file, Delimited(",", columns=["n", "text", "label"]))) == 2
    file.write_text(",,\n1,2,3\n")
    with pytest.raises(UserError, match="names no column"):
        open_rows(file, Delimited(","))


def test_a_wrong_encoding_is_refused_and_the_right_one_suggested(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    for encoding, message in (
        ("cp949", "line 2 .* not utf-8 .*`encoding`, which may be cp949"),
        ("utf-16", "set `encoding: utf-16`"),
    ):
        file.write_bytes("text,n\n가,1\n".encode(encoding))
        with pytest.raises(UserError, match=message):
            open_rows(file, Delimited(","))
        assert open_rows(file, Delimited(",", encoding=encoding)).row(0)["text"] == "가"
    file.write_bytes("text,n\n가,1\n".encode("utf-16-le")[:-1])
    with pytest.raises(UserError, match=r"not utf-16 .*utf-16-le"):
        open_rows(file, Delimited(",", encoding="utf-16"))


def test_integers_and_floats_in_one_column_keep_their_digits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"n": 1}, {"n": 2.5}, {"n": NaN}, {"n": true}]')
    rows = open_rows(tmp_path / "a.json", JsonDocuments())
    assert [render_column(rows.row(n), "n") for n in range(4)] == ["1", "2.5", None, "True"]


# --- tar


def test_a_sparse_member_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("1.pcm")
        info.pax_headers = {
            "GNU.sparse.size": "4096",
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.map": "1024,512",
        }
        info.size = 512
        archive.addfile(info, io.BytesIO(b"\1" * 512))
        info = tarfile.TarInfo("1.txt")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"a"))
    row = open_rows(path).row(0)
    assert row["txt"] == "a"
    with pytest.raises(RowError, match=r"1\.pcm is stored as a sparse file \(tar -S\)"):
        row["pcm"]


def test_a_member_name_that_is_not_utf_8_and_a_truncated_shard(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [("가.txt".encode("cp949").decode("utf-8", "surrogateescape"), b"a")])
    assert open_rows(path).row(0) == {"__key__": "\\xb0\\xa1", "txt": "a"}
    whole = path.read_bytes()
    (tmp_path / "b.tar").write_bytes(whole + whole[:600])
    with pytest.raises(UserError, match=r"cannot read .*b\.tar to its end"):
        open_rows(tmp_path / "b.tar")


# --- patterns and many files


def test_a_pattern_never_matches_derived_files(tmp_path: Path) -> None:
    for n in range(2):
        (tmp_path / f"a-{n}.jsonl").write_text('{"q": "a", "a": "b"}\n' * 3)
    for pattern in ("*", "a-*", "a-?*"):
        source = Manifest(str(tmp_path / pattern), "{q}", "{a}")
        source.prepare(1, lambda _: None)
        assert len(source.training) == 6
    (tmp_path / ".a-0.jsonl.index-0123456789abcdef").write_bytes(b"half")
    assert len(open_rows(tmp_path / "*")) == len(open_rows(tmp_path / "[.a]*")) == 6
    rows = pickle.dumps(open_rows(tmp_path / "a-*"))
    (tmp_path / "a-2.jsonl").write_text('{"q": "a"}\n')
    assert len(pickle.loads(rows)) == 6  # another process reads the same files
    for n in range(2):
        (tmp_path / f"b-{n}.csv").write_text("q,a\n1,2\n")
    for _ in range(2):
        assert len(open_rows(tmp_path / "b-*", Delimited(","))) == 2
    (tmp_path / "b-9.rows").write_text("q,a\n1,2\n")  # a data file in spite of its name
    assert len(open_rows(tmp_path / "b-*", Delimited(","))) == 3


class Unpicklable:
    """A job that another process cannot unpickle."""

    def __call__(self, progress) -> None: ...

    def __reduce__(self):
        return _raise_missing, ()


def _raise_missing():
    raise UserError("found no table any more")


@pytest.mark.slow  # starts processes
def test_a_job_that_cannot_be_unpickled_raises_its_own_error() -> None:
    with pytest.raises(UserError, match="found no table any more"):
        list(run_jobs({0: Unpicklable(), 1: Unpicklable()}, 2, lambda _: None))


def test_the_number_of_open_files_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "MAX_FILES", 5)
    for n in range(13):
        (tmp_path / f"a-{n:02}.jsonl").write_text(f'{{"n": {n}}}\n')
        write_tar(tmp_path / f"a-{n:02}.tar", [("1.txt", str(n).encode())])
        pq.write_table(pa.table({"n": [n]}), tmp_path / f"a-{n:02}.parquet")
    for name, column in (("a-*.jsonl", "n"), ("a-{00..12}.tar", "txt"), ("a-*.parquet", "n")):
        rows = open_rows(tmp_path / name)
        for n in (0, 12, 5, 0, 7):
            assert str(rows.row(n)[column]) == str(n)
            assert rows.place(n)[1] == 1
        assert sum(files for _, files in open_files._open.values()) <= 5
    del rows
    assert len(open_files._open) == 0  # with the tables


def test_a_file_that_changed_while_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jsonl", "a.parquet"):
        path = tmp_path / name
        write = (
            path.write_text
            if name == "a.jsonl"
            else lambda text, path=path: pq.write_table(pa.table({"n": [text]}), path)
        )
        write('{"n": 1}\n')
        rows = open_rows(path)
        open_files._open.clear()
        assert rows.row(0)
        write('{"n": 17}\n')
        open_rows(path)
        open_files._open.clear()
        with pytest.raises(UserError, match=f"{name} .*changed"):
            rows.row(0)


def test_an_arrow_file_of_another_version_is_rewritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    fingerprint = open_rows(tmp_path / "a.parquet").fingerprint
    before = (tmp_path / "a.parquet.rows").read_bytes()
    monkeypatch.setattr(arrow_rows, "VERSION", arrow_rows.VERSION + 1)
    assert open_rows(tmp_path / "a.parquet").fingerprint == fingerprint
    assert (tmp_path / "a.parquet.rows").read_bytes() != before


# --- recordings as arrays of numbers


def wave(samples: int) -> np.ndarray:
    return np.sin(np.arange(samples) / 7).astype(np.float32) / 2


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "float32.parquet"])
def test_an_array_of_samples_is_a_recording(tmp_path: Path, kind: str) -> None:
    samples = wave(1009)
    row = {"audio": {"path": None, "array": samples.tolist(), "sampling_rate": 16_000}, "text": "a"}
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        import json

        path.write_text(json.dumps(row) + "\n")
    else:
        width = pa.float32() if "float32" in kind else pa.float64()
        struct = pa.struct([("path", pa.string()), ("array", pa.list_(width)), ("sampling_rate", pa.int64())])
        pq.write_table(pa.table({"audio": pa.array([row["audio"]], struct), "text": ["a"]}), path)
    rows = open_rows(path)
    (slot, text) = Template("{audio:audio}{text}").render(rows.row(0))
    assert (text, isinstance(slot, MediaSegment)) == ("a", True)
    found, rate = open_audio(slot.reference)  # pyright: ignore[reportAttributeAccessIssue]
    assert rate == 16_000
    np.testing.assert_array_equal(found, samples)


def test_channels_of_an_array_of_samples_are_averaged() -> None:
    stereo = np.stack([wave(101), wave(101) / 2])
    for array in (stereo, stereo.T):
        value = {"a": {"array": array.tolist(), "sampling_rate": 8000.0}}
        (slot,) = Template("{a:audio}").render(value)
        found, _ = open_audio(slot.reference)  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_allclose(found, stereo.mean(axis=0), atol=1e-7)


@pytest.mark.parametrize(
    ("array", "rate", "words"),
    [
        ([0.1, math.nan], 8000, "NaN or infinite"),
        ([], 8000, "0 samples"),
        ([[0.1, 0.2], [0.1]], 8000, "unequal lengths"),
        (["a"], 8000, "has non-numbers"),
        ([[[0.1]]], 8000, r"shape \(1, 1, 1\)"),
        ([0, 12_000], 8000, "up to 12000, expected samples between -1 and 1"),
        ([0.1], 0, "sampling_rate 0"),
        ([0.1], None, "sampling_rate None"),
        ([0.1], "8000", "sampling_rate '8000'"),
        ([0.1], 1 << 30, "sampling_rate 1073741824"),
        ([0.1], float("inf"), "sampling_rate inf"),
        ([10**400], 8000, "an array that has non-numbers"),
    ],
)
def test_bad_arrays_of_samples_are_refused(array, rate, words) -> None:
    with pytest.raises(BadSample, match=f"column 'a' is a recording with .*{words}"):
        Template("{a:audio}").render({"a": {"array": array, "sampling_rate": rate}})
