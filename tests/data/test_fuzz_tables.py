"""Fuzzed tables: each row is read as written or skipped, or the file is refused with a one-line cause.

First, bytes of valid manifests are mutate. Then whole tables are drawn row by row and written by pandas, polars,
pyarrow and Python; the expected rows are those that were written.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from fuzzing import EXAMPLES, FUZZ, STRUCTURE_FUZZ, encode_image, mutate, mutations
from hypothesis import given, settings
from hypothesis import strategies as st
from table_cases import render_column

from encoders.stems import PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.layouts import Delimited
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(1800, EXAMPLES))]


ROWS = [{"picture": f"{n}.png", "caption": f"그림 {n}", "more": [n, None, {"a": "b"}]} for n in range(11)]
LINES = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS)).encode()


def encode_parquet() -> bytes:
    buffer = io.BytesIO()
    rows = [{key: row[key] for key in ("picture", "caption")} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def _same(raw: bytes) -> bytes:
    return raw


def encode_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(len(ROWS)):
            for name, content in (
                ("picture", b"broken" if number == 3 else encode_image()),
                ("txt", f"그림 {number}".encode()),
            ):
                member = tarfile.TarInfo(f"{number}.{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


MANIFESTS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "x.jsonl": (LINES, _same),
    "x.jsonl.gz": (LINES, gzip.compress),
    "x.jsonl.zst": (LINES, zstandard.compress),
    "x.parquet": (encode_parquet(), _same),
    "x.tar": (encode_tar(), _same),
}
"""(Content, compression) by file name. Content is damaged before or after compression."""


@pytest.mark.parametrize("name", MANIFESTS)
def test_damaged_manifests_are_skipped_row_by_row_or_refused(name: str, tmp_path: Path) -> None:
    for number in range(len(ROWS)):
        (tmp_path / f"{number}.png").write_bytes(encode_image())
    (tmp_path / "3.png").write_bytes(b"broken")
    interfaces = {"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 16)}
    outcomes = {"read": 0, "skipped": 0, "refused": 0}

    @settings(FUZZ, max_examples=max(100, EXAMPLES // 3) if name != "x.jsonl" else EXAMPLES)
    @given(changes=mutations(), before=st.booleans())
    def check(changes: list[tuple[str, float, bytes]], before: bool) -> None:
        for path in tmp_path.glob("x.*"):
            path.unlink()
        raw, compress = MANIFESTS[name]
        damaged = compress(mutate(raw, changes)) if before else mutate(compress(raw), changes)
        (tmp_path / name).write_bytes(damaged)
        try:
            target = "{txt}" if name == "x.tar" else "{caption}"
            source = Manifest(str(tmp_path / name), "{picture:image} 설명: ", target)
            source.connect(interfaces)
            source.prepare(1, lambda _: None)
        except UserError:
            outcomes["refused"] += 1
            return
        rows = np.arange(len(source.training))
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


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=23),
    st.sampled_from(["", " ", "null", "NaN", "nan", "NA", "None", "true", "1", "01", "1e3", "-", "\\N", '"']),
    st.sampled_from(
        ["a,b", "a\tb", "a\nb", "\ufeffa", "a\u2028b", "'", "=1+1", "가\u1100\u1161", "x" * 140_000]
    ),
    st.sampled_from(["{a}", "\\", "a\\"]),
)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXT,
    "maybe": st.one_of(st.none(), TEXT),
    "number": st.integers(-(2**63), 2**63 - 1),
    "share": st.floats(allow_nan=False, allow_infinity=False),
    "truth": st.booleans(),
    "unused": st.sampled_from([[1, None], [], [2]]),
}
TABLE = st.lists(st.fixed_dictionaries(COLUMNS), min_size=1, max_size=7)
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: b"".join(gzip.compress(raw[a : a + 99]) for a in range(0, len(raw), 99)),
    ".zst": lambda raw: zstandard.compress(raw),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def write_json_lines(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    suffix = draw(st.sampled_from(sorted(COMPRESSIONS)))
    end, ascii_only = draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"])), draw(st.booleans())
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows) + draw(
        st.sampled_from(["", end])
    )
    mark = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return f"a.jsonl{suffix}", COMPRESSIONS[suffix](mark + text.encode())


def write_json_array(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    indent = draw(st.sampled_from([None, 1, 4]))
    return draw(st.sampled_from(["a.json", "a.jsonl"])), json.dumps(rows, indent=indent).encode()


def write_with_pandas(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    frame, buffer = pandas.DataFrame(rows), io.BytesIO()
    if draw(st.booleans()):
        frame["number"] = frame["number"].astype("Int64")
    frame["truth"] = frame["truth"].astype(draw(st.sampled_from(["bool", "boolean"])))
    frame["text"] = frame["text"].astype(draw(st.sampled_from(["object", "string", "category"])))
    frame.to_parquet(
        buffer,
        index=draw(st.sampled_from([None, True, False])),
        compression=draw(st.sampled_from(["snappy", "zstd", None, "gzip"])),
    )
    return "a.parquet", buffer.getvalue()


def write_with_polars(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    schema = {"text": polars.String, "maybe": polars.String, "number": polars.Int64, "share": polars.Float64}
    schema |= {"truth": polars.Boolean, "unused": polars.List(polars.Int64)}
    frame, buffer = polars.DataFrame(rows, schema=schema), io.BytesIO()
    if draw(st.booleans()):
        frame = frame.with_columns(polars.col("text").cast(polars.Categorical))
    kind = draw(st.sampled_from(["parquet", "arrow", "feather"]))
    if kind == "parquet":
        frame.write_parquet(buffer, row_group_size=draw(st.integers(1, 7)), statistics=draw(st.booleans()))
    else:
        frame.write_ipc(buffer, compression=draw(st.sampled_from(["uncompressed", "lz4", "zstd"])))
    return f"a.{kind}", buffer.getvalue()


def write_with_pyarrow(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    text = draw(st.sampled_from([pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()]))
    coded = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) if draw(st.booleans()) else text
    fields = {"text": coded, "maybe": text, "number": pyarrow.int64(), "share": pyarrow.float64()}
    fields |= {"truth": pyarrow.bool_(), "unused": pyarrow.list_(pyarrow.int8())}
    table, buffer = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields)), io.BytesIO()
    pyarrow.parquet.write_table(
        table,
        buffer,
        row_group_size=draw(st.integers(1, 7)),
        use_dictionary=draw(st.booleans()),
        version=draw(st.sampled_from(["1.0", "2.6"])),
        data_page_version=draw(st.sampled_from(["1.0", "2.0"])),
    )
    return "a.parquet", buffer.getvalue()


def write_csv(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    buffer = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.DictWriter(buffer, [*COLUMNS], quoting=quoting, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return "a.csv", buffer.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig"])))


def write_tar(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    formats = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
    with tarfile.open(fileobj=buffer, mode="w", format=draw(st.sampled_from(formats))) as archive:
        for number, row in enumerate(rows):
            content = json.dumps(row).encode()
            member = tarfile.TarInfo(f"{draw(st.sampled_from(['', 'a/', './', 'd.e/']))}{number}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return "a.tar", buffer.getvalue()


WRITERS: dict[str, tuple[Callable[..., tuple[str, bytes]], Layout | None, str]] = {
    "JSON lines": (write_json_lines, None, ""),
    "JSON array": (write_json_array, None, ""),
    "pandas": (write_with_pandas, None, ""),
    "polars": (write_with_polars, None, ""),
    "pyarrow": (write_with_pyarrow, None, ""),
    "CSV": (write_csv, Delimited(",", quoting="minimal"), ""),
    "tar": (write_tar, None, "json."),
}
"""Name -> (writer, layout for reading, prefix of the column names)."""


@pytest.mark.parametrize("name", WRITERS)
def test_tables_are_read_as_written(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(tmp_path / "cache"))
    write, layout, prefix = WRITERS[name]
    count = Counter[str]()

    @STRUCTURE_FUZZ
    @given(rows=TABLE, data=st.data())
    def check(rows: list[dict[str, Any]], data: st.DataObject) -> None:
        for old in tmp_path.glob("*.*"):
            old.unlink()
        file, raw = write(rows, data.draw)
        (tmp_path / file).write_bytes(raw)
        table = open_rows(tmp_path / file, layout)
        assert len(table) == len(rows)
        for number, row in enumerate(rows):
            for column in ("text", "maybe", "number", "share", "truth"):
                count["values"] += 1
                found = render_column(table.row(number), prefix + column)
                assert found == expected_text(row[column], name), (column, row[column], file)

    check()
    assert count["values"] > EXAMPLES, count


def expected_text(value: Any, writer: str) -> str | None:
    """Return the text that a prompt gets from a value; an empty field of a CSV is null."""
    if value is None or (writer == "CSV" and str(value) == ""):
        return None
    return str(value)


def test_files_with_a_wrong_suffix_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    """A file whose suffix belongs to another format is read by its content, or refused."""
    rows = [{"text": "가", "maybe": None, "number": 1, "share": 0.5, "truth": True, "unused": [1]}]

    @STRUCTURE_FUZZ
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        for old in tmp_path.glob("*.*"):
            old.unlink()
        write = data.draw(st.sampled_from([write for write, _, _ in WRITERS.values()]))
        _, raw = write(rows, data.draw)
        suffix = data.draw(
            st.sampled_from(["jsonl", "json", "jsonl.gz", "parquet", "arrow", "tar", "jsonl.xz"])
        )
        path = tmp_path / f"b.{suffix}"
        path.write_bytes(raw)
        try:
            table = open_rows(path)
            found = render_column(table.row(0), "text") or render_column(table.row(0), "json.text")
        except UserError as error:
            found, refused = None, str(error)
        else:
            refused = None
        if refused is not None:
            assert len(refused.splitlines()) == 1
            assert "b." in refused
        assert found in ("가", None)

    check()
