"""Files whose structure is drawn, not their bytes: what we read is what a second reader reads, or it is refused.

Recordings are whole ones of real encoders, joined, cut, tagged, padded and wrapped; the second reader is FFmpeg with
a demuxer of its own choice. Pictures are those of `image_cases`, their blocks repeated, left out and swapped; the
second reader is Pillow. Tables are drawn row by row and written by pandas, polars, pyarrow and Python; the second
reader is what went in.
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
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard
from fuzzing import EXAMPLES, LONG
from fuzzing import FUZZ as ALL
from hypothesis import given, settings
from hypothesis import strategies as st
from image_cases import IMAGES, split_chunks
from PIL import Image
from recording_cases import ID3V1, WHOLE, make_ape, make_id3, make_lyrics, wrap_in_wav
from table_cases import render_column

from kebyt5_xm.data.layouts import Delimited
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.media.bad_sample import MediaError
from kebyt5_xm.data.media.opening import open_audio, open_image, read_audio_header, read_header
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(max(1800, EXAMPLES))]

FUZZ = ALL if LONG else settings(ALL, max_examples=EXAMPLES // 5)
PADDING_SECONDS = 0.16
"""What codecs may add or leave out at the ends: two frames of AAC at 16 kHz are 0.128 s."""


@cache
def recording(name: str) -> bytes:
    return WHOLE[name]().raw


JUNK: dict[str, Callable[[], bytes]] = {
    "id3": lambda: make_id3(77),
    "id3 twice": lambda: make_id3(5) + make_id3(301),
    "id3v1": lambda: ID3V1,
    "ape": make_ape,
    "lyrics": lambda: make_lyrics() + ID3V1,
    "zeros": lambda: bytes(301),
    "line end": lambda: b"\r\n",
    "riff": lambda: b"RIFF\x04\0\0\0WAVE",
    "chunk": lambda: b"LIST\4\0\0\0INFO",
}


STEPS = ("cut", "front", "behind", "hole", "repeat", "wrap", "insert")
"""What happens to a recording; each at a place, as a share of its bytes, over a number of bytes, with some junk."""
Step = tuple[str, float, int, str]


def recordings() -> st.SearchStrategy[tuple[list[str], list[Step]]]:
    """One or two whole recordings, and what happens to them."""
    size = st.sampled_from([1, 2, 417, 4096, 20_001])
    step = st.tuples(st.sampled_from(STEPS), st.floats(0, 1), size, st.sampled_from(sorted(JUNK)))
    names = st.lists(st.sampled_from(sorted(WHOLE)), min_size=1, max_size=2)
    return st.tuples(names, st.lists(step, max_size=2))


def built(names: list[str], steps: list[Step]) -> bytes:
    raw = b"".join(recording(name) for name in names)
    for step, share, size, junk in steps:
        at, more = int(share * len(raw)), JUNK[junk]()
        if step == "cut":
            raw = raw[:at]
        elif step == "front":
            raw = more + raw
        elif step == "behind":
            raw += more
        elif step == "hole":
            raw = raw[:at] + raw[at + size :]
        elif step == "repeat":
            raw = raw[: at + size] + raw[at:]
        elif step == "wrap":
            raw = wrap_in_wav(raw, 0x55)
        else:
            raw = raw[:at] + more + raw[at:]
    return raw


def seconds_by_ffmpeg(raw: bytes) -> float:
    """Seconds of sound that FFmpeg finds; 0 where it finds none."""
    seconds = 0.0
    try:
        with av.open(io.BytesIO(raw)) as container:
            stream = container.streams.audio[0]
            for packet in container.demux(stream):
                try:
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.error.FFmpegError:
                    continue
    except (av.error.FFmpegError, IndexError, ValueError):
        return seconds
    return seconds


def test_a_recording_is_as_long_as_a_second_reader_finds_it_or_refused() -> None:
    outcomes: Counter[str] = Counter()

    @FUZZ
    @given(made=recordings())
    def check(made: tuple[list[str], list[Step]]) -> None:
        raw = built(*made)
        try:
            said = read_audio_header(raw)
            waveform, rate = open_audio(raw)
        except MediaError as error:
            outcomes["refused" if "\n" not in str(error) else "in several lines"] += 1
            return
        outcomes["read"] += 1
        assert (said.num_samples, said.sample_rate) == (len(waveform), rate)
        assert len(waveform) / rate > seconds_by_ffmpeg(raw) - PADDING_SECONDS

    with av.logging.Capture():  # what FFmpeg says of damage
        check()
    assert not outcomes["in several lines"]
    assert min(outcomes["read"], outcomes["refused"]) > EXAMPLES // 100, outcomes


def blocks(raw: bytes) -> list[bytes]:
    """A picture in pieces: the chunks of a PNG, the segments of a JPEG, else pieces of 97 bytes."""
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return [raw[:8], *split_chunks(raw)]
    if raw.startswith(b"\xff\xd8"):
        places = [at for at in range(len(raw) - 1) if raw[at] == 0xFF and raw[at + 1] not in (0, 0xFF)]
        return [raw[a:b] for a, b in zip(places, [*places[1:], len(raw)], strict=True)]
    return [raw[at : at + 97] for at in range(0, len(raw), 97)]


@pytest.mark.filterwarnings("ignore")  # Pillow's, of damage
def test_a_picture_has_the_pixels_that_a_second_reader_finds_or_is_refused() -> None:
    outcomes: Counter[str] = Counter()

    @FUZZ
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(IMAGES)))
        pieces = blocks(IMAGES[name]().raw)
        for _ in range(data.draw(st.integers(0, 2))):
            step = data.draw(st.sampled_from(["drop", "repeat", "swap", "cut", "append"]))
            a, b = (data.draw(st.integers(0, len(pieces) - 1)) for _ in "ab")
            if step == "drop" and len(pieces) > 1:
                del pieces[a]
            elif step == "repeat":
                pieces.insert(a, pieces[b])
            elif step == "swap":
                pieces[a], pieces[b] = pieces[b], pieces[a]
            elif step == "cut":
                pieces = pieces[: a + 1]
            else:
                pieces.append(pieces[b])
        raw = b"".join(pieces)
        try:
            said = read_header(raw, "image")
            found = open_image(raw)
        except MediaError as error:
            outcomes["refused" if "\n" not in str(error) else "in several lines"] += 1
            return
        outcomes["read"] += 1
        assert found.size == (said.width, said.height), name
        assert found.mode == "RGB"
        try:
            other = Image.open(io.BytesIO(raw))
            other.load()
            turned = other.getexif().get(0x0112, 0) > 1
        except Exception:  # its limits on metadata, of which we read none
            return
        if other.mode in ("RGB", "L") and other.size == found.size and not turned:
            outcomes["compared"] += 1
            if "transparency" not in other.info and not raw.startswith(b"II*\0"):
                np.testing.assert_array_equal(np.asarray(found), np.asarray(other.convert("RGB")), name)

    check()
    assert not outcomes["in several lines"]
    assert min(outcomes["read"], outcomes["refused"], outcomes["compared"]) > EXAMPLES // 100, outcomes


TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=23),
    st.sampled_from(
        [
            "",
            " ",
            "null",
            "NaN",
            "nan",
            "NA",
            "None",
            "true",
            "1",
            "01",
            "1e3",
            "-",
            "\\N",
            '"',
            "a,b",
            "a\tb",
        ]
    ),
    st.sampled_from(
        ["a\nb", "\ufeffa", "a\u2028b", "'", "=1+1", "가\u1100\u1161", "x" * 140_000, "{a}", "\\", "a\\"]
    ),
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
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda raw: raw,
    ".gz": lambda raw: b"".join(gzip.compress(raw[a : a + 99]) for a in range(0, len(raw), 99)),
    ".zst": lambda raw: zstandard.compress(raw),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def json_lines(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    packed = draw(st.sampled_from(sorted(PACKED)))
    end, ascii_only = draw(st.sampled_from(["\n", "\r\n", "\n\n", " \n"])), draw(st.booleans())
    text = end.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows) + draw(
        st.sampled_from(["", end])
    )
    mark = b"\xef\xbb\xbf" if draw(st.booleans()) else b""
    return f"a.jsonl{packed}", PACKED[packed](mark + text.encode())


def json_array(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    indent = draw(st.sampled_from([None, 1, 4]))
    return draw(st.sampled_from(["a.json", "a.jsonl"])), json.dumps(rows, indent=indent).encode()


def by_pandas(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
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


def by_polars(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
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


def by_pyarrow(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
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


def delimited(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
    buffer = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.DictWriter(buffer, [*COLUMNS], quoting=quoting, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return "a.csv", buffer.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8-sig"])))


def shard(rows: list[dict[str, Any]], draw: Callable[[Any], Any]) -> tuple[str, bytes]:
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
    "JSON lines": (json_lines, None, ""),
    "JSON array": (json_array, None, ""),
    "pandas": (by_pandas, None, ""),
    "polars": (by_polars, None, ""),
    "pyarrow": (by_pyarrow, None, ""),
    "CSV": (delimited, Delimited(",", quoting="minimal"), ""),
    "tar": (shard, None, "json."),
}
"""Each with the layout that it is read by, and what stands in front of a column's name."""


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_is_read_as_what_went_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(tmp_path / "cache"))
    write, layout, prefix = WRITERS[name]
    count = Counter[str]()

    @FUZZ
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
                assert found == truth(row[column], name), (column, row[column], file)

    check()
    assert count["values"] > EXAMPLES, count


def truth(value: Any, writer: str) -> str | None:
    """What a prompt has of a value: its `str`; an empty field of delimited text is null."""
    if value is None or (writer == "CSV" and str(value) == ""):
        return None
    return str(value)


def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path) -> None:
    """A file of one kind under the name of another is read as what it is, or refused."""
    rows = [{"text": "가", "maybe": None, "number": 1, "share": 0.5, "truth": True, "unused": [1]}]

    @FUZZ
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
