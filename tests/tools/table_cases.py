"""Tables as common libraries write them: many writers, types and options, with the rows that a reader must return.

Each maker of `TABLES` writes a file into a folder and returns a `TableCase`: the file, its layout, and the expected
texts by column, None where the value is missing or unusable. The expected texts come from the input, not from our
readers.
"""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.orc
import pyarrow.parquet as pq
import zstandard

from kebyt5_xm.data.layouts import Delimited, JsonDocuments
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.sources.template import Template

TEXTS = ["가나다", "two  words", "", "따옴표 \" ' ,;\t", "漢字\n둘째 줄", "é é", "😀\u2028x"]
"""Difficult texts: empty, quotation marks, delimiters, line ends, two forms of a letter, four-byte characters."""
LABELS = ["1", "0", "1", "1", "0", "0", "1"]


@dataclass
class TableCase:
    """A file and the expected texts of its rows. In delimited files an empty text is null, so None."""

    path: Path
    columns: dict[str, list[str | None]]
    layout: Layout | None = None


Maker = Callable[[Path], TableCase]
TABLES: dict[str, Maker] = {}


def table(name: str) -> Callable[[Maker], Maker]:
    def add(maker: Maker) -> Maker:
        TABLES[name] = maker
        return maker

    return add


def rows() -> list[dict[str, Any]]:
    return [{"text": text, "label": int(label)} for text, label in zip(TEXTS, LABELS, strict=True)]


def make_case(path: Path, layout: Layout | None = None, blank: str | None = "") -> TableCase:
    texts: list[str | None] = [text or blank for text in TEXTS]
    return TableCase(path, {"text": texts, "label": [*LABELS]}, layout)


# --- parquet, Arrow, ORC


def arrow_types() -> dict[str, tuple[pa.Array, list[str | None]]]:
    """Name -> (a column of three rows, their expected texts)."""
    date, time = datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3)
    three = ["가", "", None]
    raw = [text.encode() if text is not None else None for text in three]
    nanoseconds = 1_709_168_523_000_000_000
    bad = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.py_buffer(b"\0\0\0\0\3\0\0\0\4\0\0\0\4\0\0\0"), pa.py_buffer(b"\xff\xfe\xfdb")],
    )
    return {
        "string": (pa.array(three), [*three]),
        "large_string": (pa.array(three, pa.large_string()), [*three]),
        "string_view": (pa.array(three, pa.string_view()), [*three]),
        "dictionary": (pa.array(three).dictionary_encode(), [*three]),
        "binary": (pa.array(raw, pa.binary()), [*three]),
        "large_binary": (pa.array(raw, pa.large_binary()), [*three]),
        "binary_view": (pa.array(raw, pa.binary_view()), [*three]),
        "fixed_size_binary": (pa.array([b"abc", b"xyz", None], pa.binary(3)), ["abc", "xyz", None]),
        "not UTF-8": (bad, [None, "b", ""]),
        "bool": (pa.array([True, False, None]), ["True", "False", None]),
        "uint64": (pa.array([2**64 - 1, 0, None], pa.uint64()), [str(2**64 - 1), "0", None]),
        "int8": (pa.array([-128, 0, None], pa.int8()), ["-128", "0", None]),
        "float32": (pa.array([0.1, 2.5, None], pa.float32()), ["0.1", "2.5", None]),
        "float16": (pa.array([0.1, 2.5, None], pa.float16()), ["0.1", "2.5", None]),
        "float64": (pa.array([0.1, float("nan"), float("inf")]), ["0.1", None, None]),
        "decimal": (pa.array([decimal.Decimal("1.50"), None, decimal.Decimal(-2)]), ["1.50", None, "-2.00"]),
        "date32": (pa.array([date, None, date]), ["2024-02-29", None, "2024-02-29"]),
        "date32 past 9999": (pa.array([3_000_000, 0, None], pa.date32()), [None, "1970-01-01", None]),
        "date64": (pa.array([date, None, date], pa.date64()), ["2024-02-29", None, "2024-02-29"]),
        "timestamp us": (
            pa.array([time, None, None], pa.timestamp("us")),
            ["2024-02-29 01:02:03", None, None],
        ),
        "timestamp ns": (
            pa.array([nanoseconds, nanoseconds + 7, None], pa.timestamp("ns")),
            ["2024-02-29 01:02:03", "2024-02-29 01:02:03.000000007", None],
        ),
        "timestamp ns zone": (
            pa.array([nanoseconds, nanoseconds + 1007, None], pa.timestamp("ns", "Asia/Seoul")),
            ["2024-02-29 10:02:03+09:00", "2024-02-29 10:02:03.000001007+09:00", None],
        ),
        "time ns": (
            pa.array([1001, 3_600_000_000_000, None], pa.time64("ns")),
            ["00:00:00.000001001", "01:00:00", None],
        ),
        "duration ns": (
            pa.array([1001, 3_600_000_000_000, 1], pa.duration("ns")),
            ["0:00:00.000001001", "1:00:00", "0:00:00.000000001"],
        ),
        "null": (pa.nulls(3), [None, None, None]),
        "uuid": (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None, b"1" * 16], pa.binary(16))),
            ["30303030-3030-3030-3030-303030303030", None, "31313131-3131-3131-3131-313131313131"],
        ),
        "json": (
            pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}', None, "2"])),
            ['{"a":1}', None, "2"],
        ),
        "list": (pa.array([["a"], [], None]), [None, None, None]),
        "list of dictionaries": (
            pa.ListArray.from_arrays([0, 1, 2, 2], pa.array(["a", "b"]).dictionary_encode()),
            [None, None, None],
        ),
        "map": (pa.array([[("k", "v")], [], None], pa.map_(pa.string(), pa.string())), [None, None, None]),
    }


IN_ARROW_ALONE: dict[str, tuple[pa.Array, list[str | None]]] = {
    "run ends": (
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"])),
        ["a", "a", "b"],
    ),
    "union": (
        pa.UnionArray.from_sparse(
            pa.array([0, 1, 0], pa.int8()), [pa.array(["a", "b", "c"]), pa.array([1, 2, 3])]
        ),
        ["a", "2", "c"],
    ),
    "interval": (pa.array([(1, 2, 3), None, None], pa.month_day_nano_interval()), [None, None, None]),
    "list view": (pa.array([["a"], [], None], pa.list_view(pa.string())), [None, None, None]),
}
"""Types that only Arrow files have, not parquet."""


def of_types(
    types: dict[str, tuple[pa.Array, list[str | None]]],
) -> tuple[pa.Table, dict[str, list[str | None]]]:
    return (
        pa.table({name: column for name, (column, _) in types.items()}),
        {name: texts for name, (_, texts) in types.items()},
    )


@table("pyarrow parquet, every type")
def _(folder: Path) -> TableCase:
    made, truth = of_types(arrow_types())
    pq.write_table(made, folder / "a.parquet", row_group_size=2)
    return TableCase(folder / "a.parquet", truth)


@table("pyarrow parquet, objects")
def _(folder: Path) -> TableCase:
    pairs = [{"en": "a", "ko": {"text": "가", "n": 0.1}}, {"en": None, "ko": None}, None]
    kind = pa.struct(
        [("en", pa.string()), ("ko", pa.struct([("text", pa.large_string()), ("n", pa.float32())]))]
    )
    columns = {
        "pair": pa.array(pairs, kind),
        "pair.ko.text": pa.array(["x", None, "z"]),
        "a.b": pa.array(["1", "2", "3"]),
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")
    truth: dict[str, list[str | None]] = {
        "pair.en": ["a", None, None],
        "pair.ko.n": ["0.1", None, None],
        "pair.ko.text": ["x", None, "z"],  # the column of exactly that name
        "a.b": ["1", "2", "3"],
    }
    return TableCase(folder / "a.parquet", truth)


for _version in ("1.0", "2.6"):
    for _compression in ("none", "snappy", "gzip", "zstd", "brotli", "lz4"):

        @table(f"pyarrow parquet {_version} {_compression}")
        def _(folder: Path, version: Any = _version, compression: str = _compression) -> TableCase:
            made = pa.Table.from_pylist(rows() * 43)
            pq.write_table(
                made, folder / "a.pq", version=version, compression=compression, row_group_size=101
            )
            return TableCase(folder / "a.pq", {"text": [*TEXTS] * 43, "label": [*LABELS] * 43})


def _ipc(path: Path, stream: bool, compression: str | None) -> TableCase:
    made, truth = of_types({**arrow_types(), **IN_ARROW_ALONE})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    opened = (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, made.schema, options=options)
    with opened as writer:
        writer.write_table(made.slice(0, 2))
        writer.write_table(made.slice(2))
    return TableCase(path, truth)


for _name, _stream, _compression in (
    ("a.arrow", False, None),
    ("a.ipc", False, "lz4"),
    ("b.arrow", True, None),
    ("a.arrows", True, "zstd"),
):

    @table(f"pyarrow {_name}, {'stream' if _stream else 'file'}, {_compression}, every type")
    def _(
        folder: Path, name: str = _name, stream: bool = _stream, compression: Any = _compression
    ) -> TableCase:
        return _ipc(folder / name, stream, compression)


@table("pyarrow feather")
def _(folder: Path) -> TableCase:
    pyarrow.feather.write_feather(pa.Table.from_pylist(rows()), str(folder / "a.feather"))
    return make_case(folder / "a.feather")


@table("pyarrow ORC")
def _(folder: Path) -> TableCase:
    pyarrow.orc.write_table(pa.Table.from_pylist(rows() * 31), str(folder / "a.orc"), stripe_size=1024)
    return TableCase(folder / "a.orc", {"text": [*TEXTS] * 31, "label": [*LABELS] * 31})


# --- pandas and polars


def pandas_frame() -> Any:
    import pandas

    return pandas.DataFrame(rows())


@table("pandas parquet, index and categories")
def _(folder: Path) -> TableCase:
    frame = pandas_frame().set_index("label", drop=False).astype({"text": "category"})
    frame.index.name = "index"
    frame.to_parquet(folder / "a.parquet")
    return make_case(folder / "a.parquet")


@table("pandas feather")
def _(folder: Path) -> TableCase:
    pandas_frame().to_feather(folder / "a.feather")
    return make_case(folder / "a.feather")


for _options in (
    {},
    {"index": False},
    {"sep": ";", "encoding": "utf-8-sig"},
    {"sep": "\t", "encoding": "utf-16"},
):

    @table(f"pandas CSV {_options}")
    def _(folder: Path, options: Any = _options) -> TableCase:
        pandas_frame().to_csv(folder / "a.csv", **options)
        delimiter, encoding = options.get("sep", ","), options.get("encoding", "utf-8")
        layout = Delimited(delimiter=delimiter, quoting="minimal", encoding=encoding.removesuffix("-sig"))
        return make_case(folder / "a.csv", layout, blank=None)


@table("pandas CSV, all quoted, carriage returns")
def _(folder: Path) -> TableCase:
    # A line end within a text stays as it is, whatever line terminator the file uses.
    pandas_frame().to_csv(folder / "a.csv", quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    return make_case(folder / "a.csv", Delimited(delimiter=",", quoting="minimal"), blank=None)


@table("pandas CSV, cp949")
def _(folder: Path) -> TableCase:
    import pandas

    texts = ["가나다", "똠방각하", "뷁"]
    pandas.DataFrame({"text": texts}).to_csv(folder / "a.csv", encoding="cp949")
    return TableCase(
        folder / "a.csv", {"text": [*texts]}, Delimited(delimiter=",", quoting="minimal", encoding="cp949")
    )


for _name, _options in (
    ("a.jsonl", {"orient": "records", "lines": True}),
    ("a.jsonl.bz2", {"orient": "records", "lines": True, "force_ascii": False}),
    ("a.jsonl.xz", {"orient": "records", "lines": True}),
    ("a.json.gz", {"orient": "records"}),
    ("a.json", {"orient": "records", "indent": 2}),
):

    @table(f"pandas JSON {_name} {_options}")
    def _(folder: Path, name: str = _name, options: Any = _options) -> TableCase:
        pandas_frame().to_json(folder / name, **options)
        return make_case(folder / name)


def polars_frame() -> Any:
    import polars

    return polars.DataFrame(rows())


@table("polars parquet, categories, lists, objects")
def _(folder: Path) -> TableCase:
    import polars

    frame = polars_frame().with_columns(
        polars.col("text").cast(polars.Categorical),
        polars.col("label").cast(polars.String).cast(polars.Enum(["0", "1"])),
        polars.col("text").alias("more").cast(polars.Binary),
        polars.struct(polars.col("text").alias("ko"), polars.lit(0.1, polars.Float32).alias("n")).alias("o"),
        polars.lit([1, 2]).alias("list"),
        polars.lit(None).alias("nothing"),
    )
    frame.write_parquet(folder / "a.parquet", row_group_size=3)
    made = make_case(folder / "a.parquet")
    made.columns |= {
        "more": [*TEXTS],
        "o.ko": [*TEXTS],
        "o.n": ["0.1"] * len(TEXTS),
        "nothing": [None] * len(TEXTS),
    }
    return made


for _level in (False, True):

    @table(f"polars IPC, views {_level}")
    def _(folder: Path, views: bool = _level) -> TableCase:
        import polars

        frame = polars_frame().with_columns(polars.col("text").cast(polars.Categorical).alias("kind"))
        frame.write_ipc(folder / "a.arrow", compat_level=None if views else polars.CompatLevel.oldest())
        made = make_case(folder / "a.arrow")
        made.columns["kind"] = [*TEXTS]
        return made


@table("polars NDJSON")
def _(folder: Path) -> TableCase:
    polars_frame().write_ndjson(folder / "a.ndjson")
    return make_case(folder / "a.ndjson")


@table("polars JSON, an array")
def _(folder: Path) -> TableCase:
    polars_frame().write_json(folder / "a.json")
    return make_case(folder / "a.json")


@table("polars CSV")
def _(folder: Path) -> TableCase:
    polars_frame().write_csv(folder / "a.csv")
    return make_case(folder / "a.csv", Delimited(delimiter=",", quoting="minimal"), blank=None)


@table("Excel's sheet as CSV, with columns without a name")
def _(folder: Path) -> TableCase:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in [
        ["text", "label", None, None],
        *([text, int(n), None, None] for text, n in zip(TEXTS, LABELS, strict=True)),
    ]:
        sheet.append(line)
    with (folder / "a.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(sheet.iter_rows(values_only=True))
    return make_case(folder / "a.csv", Delimited(delimiter=",", quoting="minimal"), blank=None)


@table("CSV with a field of 300,000 characters")
def _(folder: Path) -> TableCase:
    long = '가"' * 150_000
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "n"], [long, 1]])
    return TableCase(folder / "a.csv", {"text": [long]}, Delimited(delimiter=",", quoting="minimal"))


@table("CSV of an old Mac, lines end with a carriage return")
def _(folder: Path) -> TableCase:
    (folder / "a.csv").write_bytes("text,label\r가,1\r나,0\r".encode())
    return TableCase(folder / "a.csv", {"text": ["가", "나"], "label": ["1", "0"]}, Delimited(delimiter=","))


# --- JSON

ODD_JSON = [
    '{"text": "가", "n": NaN, "o": {"x": 1, "y": {"z": "a"}}}',
    '{"text": "\\ud800", "n": 1, "o": {"x": null}, "o.x": "its own"}',
    '{"text": "b", "n": 1.0, "o": null}',
    '{"text": "first", "text": "last", "n": 1e400, "o": {"x": [1]}}',
    '{"text": "\\u0000\u2028", "n": 123456789012345678901234567890, "o": {"y": "not an object"}}',
    '{"n": true, "text": null}',
]
ODD_TRUTH: dict[str, list[str | None]] = {
    "text": ["가", None, "b", "last", "\0\u2028", None],
    "n": [None, "1", "1.0", None, "123456789012345678901234567890", "True"],
    "o.x": ["1", "its own", None, None, None, None],
    "o.y.z": ["a", None, None, None, None, None],
}


def _compressed(raw: bytes, suffix: str) -> bytes:
    half = len(raw) // 2
    pack = {"gz": gzip.compress, "zst": zstandard.compress, "bz2": bz2.compress, "xz": lzma.compress}.get(
        suffix
    )
    return pack(raw[:half]) + pack(raw[half:]) if pack else raw


for _suffix in ("jsonl", "ndjson", "json", "jsonl.gz", "jsonl.zst", "jsonl.bz2", "jsonl.xz"):

    @table(f"odd JSON lines, .{_suffix}, in two frames")
    def _(folder: Path, suffix: str = _suffix) -> TableCase:
        raw = ("\ufeff" + "\r\n".join(ODD_JSON)).encode()
        (folder / f"a.{suffix}").write_bytes(_compressed(raw, suffix.rpartition(".")[2]))
        return TableCase(folder / f"a.{suffix}", ODD_TRUTH)


for _suffix in ("json", "jsonl", "json.gz"):

    @table(f"odd JSON array, .{_suffix}")
    def _(folder: Path, suffix: str = _suffix) -> TableCase:
        raw = ("\ufeff\n[" + ",\n ".join(ODD_JSON) + "]\n").encode()
        (folder / f"a.{suffix}").write_bytes(_compressed(raw, suffix.rpartition(".")[2]))
        return TableCase(folder / f"a.{suffix}", ODD_TRUTH)


@table("odd JSON array through its layout")
def _(folder: Path) -> TableCase:
    lines = [
        line.replace("[1]", "null") for line in ODD_JSON
    ]  # one list would make the column a column of lists
    (folder / "a.json").write_text("[" + ",\n ".join(lines) + "]", encoding="utf-8")
    return TableCase(folder / "a.json", ODD_TRUTH, JsonDocuments())


# --- tar


def write_tar(path: Path, members: Sequence[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@table("tar, odd JSON")
def _(folder: Path) -> TableCase:
    write_tar(folder / "a.tar", [(f"{n}.json", line.encode()) for n, line in enumerate(ODD_JSON)])
    return TableCase(folder / "a.tar", {f"json.{name}": texts for name, texts in ODD_TRUTH.items()})


for _format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):

    @table(f"tar, marks and line ends, long names, format {_format}")
    def _(folder: Path, format: int = _format) -> TableCase:
        name = "가" * 90 + "/" + "b" * 130
        members = [
            (f"/{name}/1.TXT", "\ufeff고양이\r\n".encode()),
            (f"/{name}/1.cls", b"3\n"),
            ("../2.txt", b"a\nb\n\n"),
            ("../2.cls", b"\xef\xbb\xbf 4 \r\n"),
            ("./3.txt", b"\xff"),
            ("./3.cls", b""),
            ("._3.txt", b"of a Mac"),
        ]
        write_tar(folder / "a.tar", members, format)
        return TableCase(folder / "a.tar", {"txt": ["고양이", "a\nb\n", None], "cls": ["3", "4", ""]})


@table("tar, two joined by cat")
def _(folder: Path) -> TableCase:
    write_tar(folder / "a.tar", [("1.txt", b"a"), ("2.txt", b"b")])
    write_tar(folder / "b.tar", [("1.txt", b"c")])
    (folder / "a.tar").write_bytes((folder / "a.tar").read_bytes() + (folder / "b.tar").read_bytes())
    return TableCase(folder / "a.tar", {"txt": ["a", "b", "c"]})


@table("tar with links")
def _(folder: Path) -> TableCase:
    with tarfile.open(folder / "a.tar", "w") as archive:

        def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(content), kind, link
            archive.addfile(info, io.BytesIO(content))

        add("d/1.txt", b"one")
        add("d/2.txt", kind=tarfile.LNKTYPE, link="d/1.txt")
        add("e/3.txt", kind=tarfile.SYMTYPE, link="../d/1.txt")
        add("e/4.txt", kind=tarfile.SYMTYPE, link="5.txt")
        add("e/5.txt", kind=tarfile.SYMTYPE, link="3.txt")
        add("e/6.txt", kind=tarfile.LNKTYPE, link="e/5.txt")
        add("e/7.txt", kind=tarfile.SYMTYPE, link="/etc/hostname")
        add("e/8.txt", kind=tarfile.SYMTYPE, link="8.txt")
        add("e/9.txt", kind=tarfile.LNKTYPE, link="absent.txt")
    return TableCase(folder / "a.tar", {"txt": ["one"] * 6 + [None] * 3})


# --- datasets


@table("datasets, saved")
def _(folder: Path) -> TableCase:
    import datasets

    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["no", "yes"]),
        pair=datasets.Features(ko=datasets.Value("string"), n=datasets.Value("float32")),
        when=datasets.Value("date32"),
        grid=datasets.Array2D((2, 2), "int32"),
    )
    extra = {"pair": {"ko": "가", "n": 0.1}, "when": datetime.date(2024, 1, 2), "grid": [[1, 2], [3, 4]]}
    datasets.Dataset.from_list([{**row, **extra} for row in rows()], features).save_to_disk(folder / "saved")
    made = make_case(folder / "saved")
    count = len(TEXTS)
    made.columns |= {"label.name": ["yes" if label == "1" else "no" for label in LABELS]}
    made.columns |= {"pair.ko": ["가"] * count, "pair.n": ["0.1"] * count, "when": ["2024-01-02"] * count}
    return made


for _how in ("json", "parquet", "csv"):

    @table(f"datasets, to_{_how}")
    def _(folder: Path, how: str = _how) -> TableCase:
        import datasets

        path = folder / ("a.jsonl" if how == "json" else f"a.{how}")
        getattr(datasets.Dataset.from_list(rows()), f"to_{how}")(str(path))
        layout = Delimited(delimiter=",", quoting="minimal") if how == "csv" else None
        return make_case(path, layout, blank=None if how == "csv" else "")


# --- refused

REFUSED: dict[str, tuple[str, bytes, str]] = {
    "UTF-16 JSON lines": ("a.jsonl", '{"a": "가"}\n'.encode("utf-16"), "is UTF-16.*iconv"),
    "UTF-16 without a mark": ("a.jsonl", '{"a": 1}\n'.encode("utf-16-le"), "is UTF-16.*iconv"),
    "an array of a whole number of 5,000 digits": ("a.json", b'[{"a": ' + b"9" * 5000 + b"}]", "4300 digits"),
    "an array that ends early": ("a.json", b'[{"a": 1},', "begins as one JSON array"),
    "an array of arrays a line": ("a.jsonl", b"[1]\n[2]\n", "begins as one JSON array.*Extra data"),
    "a pretty object": ("a.json", b'{\n "a": [\n  1\n ]\n}\n', "JsonDocuments"),
    "pandas' default JSON": ("a.json", b'{"q":{"0":"a","1":"b"},"a":{"0":"c","1":"d"}}', "orient="),
    "CSV": ("a.csv", b"a,b\n1,2\n", "Delimited.*quoting: minimal"),
    "TSV": ("a.TSV", b"a\tb\n1\t2\n", "Delimited.*quoting: minimal"),
    "Excel": ("a.xlsx", b"PK\3\4", "CSV UTF-8.*read_excel"),
    "Avro": ("a.avro", b"Obj\1", "polars.read_avro"),
    "Feather 1": ("a.feather", b"FEA1" + bytes(100), "version 1.*to_parquet"),
    "no Arrow": ("a.arrow", b"nothing of Arrow", "cannot read .*a.arrow to its end"),
    "no ORC": ("a.orc", b"nothing of ORC", "cannot read .*a.orc to its end"),
    "compressed tar": ("a.tar.gz", gzip.compress(bytes(1024)), "unpack its compression"),
    "tgz": ("a.tgz", gzip.compress(bytes(1024)), "unpack its compression"),
    "gzip with more behind it": ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n') + b"more", "get it again"),
    "cut xz": ("a.jsonl.xz", lzma.compress(b'{"a": 1}\n')[:-3], "get it again"),
    "bzip2 with more behind it": ("a.jsonl.bz2", bz2.compress(b'{"a": 1}\n') + b"more", "get it again"),
    "tar with more behind it": ("a.tar", bytes(10240) + b"more" * 200, "to its end"),
}
"""Name -> (file name, content, pattern of the error message)."""


def render_column(row: Any, column: str) -> str | None:
    """Return the text of a column in a prompt, or None if the prompt cannot use its value."""
    try:
        return "".join(str(segment) for segment in Template(f"{{{column}}}").render(row))
    except BadSample:
        return None
