"""`kebyt5-xm prepare text`: reads every format, counts every fault with its line, writes no shard twice."""

import argparse
import bz2
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest.mock import patch

import fsspec
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kebyt5_xm.commands import prepare
from kebyt5_xm.commands.prepare import prepare_text
from kebyt5_xm.commands.readers import _split_lines
from kebyt5_xm.data.text.corpus import default_shard_bytes, list_files, plan_shards
from kebyt5_xm.data.text.documents import ReadOptions
from kebyt5_xm.data.text.shards import read_problems
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError

DOCUMENTS = ["하늘이 맑다", "two  words", "東京は広い", "中文", "x" * 257]


def documents(path: Path) -> list[str]:
    store = Store(path)
    return [store.document(i).decode() for i in range(store.num_documents)]


def contents(path: Path) -> dict[str, bytes]:
    """All files of a store, without `made_from`, which names the inputs and differs between tests."""
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    index = json.loads(files.pop("store.json"))
    del index["made_from"]
    return files | {"store.json": json.dumps(index).encode()}


def listed(path: Path) -> list[tuple[str, int, str]]:
    lines = [json.loads(line) for line in (path / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(Path(line["file"]).name, line["line"], line["cause"]) for line in lines]


def parquet(path: Path, rows: list, kind: pa.DataType, **settings) -> Path:
    pq.write_table(pa.table({"body": pa.array(rows, kind), "n": range(len(rows))}), path, **settings)
    return path


def json_lines(texts: list[str], field: str = "body") -> bytes:
    return "".join(json.dumps({"n": i, field: text}) + "\n" for i, text in enumerate(texts)).encode()


def compressed(name: str, data: bytes) -> bytes:
    """Two members or frames, as `cat a.gz b.gz` makes them."""
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(Path(name).suffix)
    return compress(data[:23]) + compress(data[23:]) if compress else data


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format", ["txt", "jsonl"])
def test_lines_of_every_format(tmp_path, format, compression):
    data = json_lines(DOCUMENTS) if format == "jsonl" else "\r\n".join(DOCUMENTS).encode()
    file = tmp_path / f"corpus.{format}{compression}"
    file.write_bytes(compressed(file.name, b"\xef\xbb\xbf" + data))  # a byte order mark is not text
    summary = prepare_text([str(file)], tmp_path / "store", "ko", ReadOptions(field="body"), workers=1)
    assert documents(tmp_path / "store") == DOCUMENTS
    assert (summary.documents, summary.bytes_read) == (5, file.stat().st_size)
    assert summary.problems == {}
    assert Store(tmp_path / "store").language == "ko"


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_columns_are_read_by_row_group(tmp_path, kind):
    rows = [*DOCUMENTS, None, *DOCUMENTS]
    file = parquet(tmp_path / "corpus.parquet", rows, kind, row_group_size=3)
    reading = ReadOptions(field="body")
    assert len(plan_shards(list_files([str(file)], "auto")[0], "line", 1)) == 4
    for shard_bytes in (1, 1 << 20):
        out = tmp_path / str(shard_bytes)
        prepare_text([str(file)], out, "ko", reading, workers=1, shard_bytes=shard_bytes)
        assert documents(out) == DOCUMENTS * 2
        assert listed(out) == [("corpus.parquet", 6, "not text")]
    with pytest.raises(UserError, match=r"no column 'bodi'; did you mean 'body'\?"):
        prepare_text([str(file)], tmp_path / "no", "ko", ReadOptions(field="bodi"), workers=1)


def test_a_document_may_be_a_whole_file(tmp_path):
    for name, text in (("b.txt", "둘\n셋\n"), ("a.txt", "하나\n\n"), ("c.txt", "x" * 31)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    reading = ReadOptions(document="file", max_document_bytes=30)
    summary = prepare_text(
        [str(tmp_path)], tmp_path / "store", "ko", reading, separator=b"\n\n", workers=1, max_skipped=1.0
    )
    assert documents(tmp_path / "store") == ["하나\n", "둘\n셋"]
    assert summary.problems == {"too long": 1}
    (tmp_path / "d.jsonl").touch()
    with pytest.raises(UserError, match="works with txt only"):
        prepare_text([str(tmp_path)], tmp_path / "other", "ko", reading, workers=1)


def test_inputs_are_urls_folders_and_globs(tmp_path, capsys):
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/2/b.txt", "나\n".encode())
    memory.pipe("/corpus/1/a.jsonl.gz", gzip.compress(json_lines(["가"], "text")))
    memory.pipe("/corpus/1/notes.md", b"not of the corpus")
    memory.pipe("/corpus/1/.hidden.txt", b"not of the corpus")
    (tmp_path / "c[1].txt").write_text("다\n", encoding="utf-8")
    prepare_text(["memory://corpus", str(tmp_path / "c[1].txt")], tmp_path / "store", "ko", workers=1)
    assert documents(tmp_path / "store") == ["가", "나", "다"]
    assert "skipped 2 files" in capsys.readouterr().err
    prepare_text(["memory://corpus/*/*.txt"], tmp_path / "glob", "ko", workers=1)
    assert documents(tmp_path / "glob") == ["나"]
    for inputs, refusal in [
        (["memory://corpus/3"], "found nothing at"),
        (["memory://corpus/*.parquet"], "found no file in"),
        (["memory://corpus/1/notes.md"], "does not show its format; expected --format"),
        (["memory://corpus/2", "memory://corpus/2/b.txt"], "named twice"),
        (["unheard-of://corpus"], "cannot open"),
    ]:
        with pytest.raises(UserError, match=refusal):
            prepare_text(inputs, tmp_path / "no", "ko", workers=1)
    assert not (tmp_path / "no").exists()


lines = st.lists(
    st.text("a가\r\0", max_size=5).map(str.encode) | st.just(b"\xff") | st.just(b"z" * 19), max_size=12
)


@settings(max_examples=60)
@given(lines=lines, ends=st.booleans(), shard_bytes=st.integers(1, 40))
def test_the_pieces_of_a_split_file_cover_it(tmp_path_factory, lines, ends, shard_bytes):
    tmp_path = tmp_path_factory.mktemp("pieces")
    (tmp_path / "a.txt").write_bytes(b"first\n" + b"\n".join(lines) + b"\n" * ends)
    reading = ReadOptions(max_document_bytes=17)
    with patch("os.fsync"):  # a hundred shards an example are slow to sync
        for name, size in (("whole", 1 << 20), ("pieces", shard_bytes)):
            prepare_text(
                [str(tmp_path / "a.txt")],
                tmp_path / name,
                "ko",
                reading,
                workers=1,
                max_skipped=1.0,
                shard_bytes=size,
            )
    assert documents(tmp_path / "pieces") == documents(tmp_path / "whole")
    assert listed(tmp_path / "pieces") == listed(tmp_path / "whole")
    assert Store(tmp_path / "pieces").problems == Store(tmp_path / "whole").problems


FAULTY = b"""\
{"text": "good"}
{"text": "bad \xff"}

{"text": "nul \\u0000"}
{"text": "half \\ud800 pair"}
not json
{"txt": "no field"}
{"text": 7}
["text"]
{"text": "%s"}
{"text": " \\n"}
%s
""" % (b"long" * 50, b"[" * 120 + b"]" * 120)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ("skip", [b"good"]),
        ("keep", [b"good", b"bad \xff", b"half \xed\xa0\x80 pair"]),
        ("replace", [b"good", "bad \ufffd".encode(), "half \ufffd\ufffd\ufffd pair".encode()]),
    ],
)
def test_every_fault_is_counted_with_its_line(tmp_path, policy, kept):
    (tmp_path / "a.jsonl").write_bytes(FAULTY)
    reading = ReadOptions(invalid_utf8=policy, max_document_bytes=140)
    for shard_bytes in (60, 1 << 20):
        out = tmp_path / str(shard_bytes)
        summary = prepare_text(
            [str(tmp_path)], out, "ko", reading, workers=1, max_skipped=1.0, shard_bytes=shard_bytes
        )
        store = Store(out)
        assert [store.document(i) for i in range(store.num_documents)] == kept
        assert [(line, cause) for _, line, cause in listed(out)] == [
            (2, "invalid UTF-8"),
            (4, "NUL byte"),
            (5, "invalid UTF-8"),
            (6, "not JSON"),
            (7, "no field"),
            (8, "not text"),
            (9, "not JSON"),
            (10, "too long"),
            (12, "too long"),
        ]
        assert summary.problems["empty"] == 2
        assert sum(summary.problems.values()) == 11


def test_too_deeply_nested_json_is_not_json(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "good"}\n' + b"[" * 200_000 + b"\n")
    assert prepare_text([str(tmp_path)], tmp_path / "store", "ko", workers=1, max_skipped=1.0).problems == {
        "not JSON": 1
    }


@pytest.mark.parametrize("name", ["b.txt.gz", "b.txt.zst", "b.parquet"])
def test_a_damaged_file_does_not_affect_the_others(tmp_path, name):
    texts = [f"{i} {os.urandom(999).hex()}" for i in range(2000)]
    (tmp_path / "a.txt").write_text("before\n")
    if name == "b.parquet":
        table = pa.table({"text": texts})
        pq.write_table(table, tmp_path / name, row_group_size=100, write_page_checksum=True)
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2 : len(data) // 2 + 4096] = bytes(4096)
        (tmp_path / name).write_bytes(data)
    else:
        data = compressed(name, "\n".join(texts).encode())
        (tmp_path / name).write_bytes(data[: len(data) * 3 // 4])
    (tmp_path / "c.txt").write_text("after\n")
    prepare_text([str(tmp_path)], tmp_path / "store", "ko", workers=1)
    first, *middle, last = documents(tmp_path / "store")
    assert (first, last) == ("before", "after")
    assert middle == texts[: len(middle)]
    assert 100 < len(middle) < 1900
    assert listed(tmp_path / "store") == [(name, len(middle) + 1, "damaged file")]


def test_a_long_line_is_never_held_in_memory():
    block = b"x" * (1 << 20)
    blocks = (block if i < 100 else b"\nshort\nlast" for i in range(101))
    tracemalloc.start()
    split = [line for batch in _split_lines(blocks, 1 << 20) for line in batch]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert split[0][:2] == ("too long", f"{100 << 20} bytes")
    assert split[1:] == [b"short", b"last"]


def test_empty_inputs_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(DOCUMENTS))
    out = tmp_path / "store"
    with pytest.raises(
        UserError, match=r"0 documents \(5 x no field\).*a.jsonl:1: no field, no 'text' among n, body"
    ):
        prepare_text([str(tmp_path)], out, "ko", workers=1)
    assert not out.exists()
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="the inputs are empty"):
        prepare_text([str(tmp_path)], out, "ko", workers=1)
    with pytest.raises(UserError, match="found no file to read"):
        prepare_text([str(tmp_path)], out, "ko", ReadOptions("parquet"), workers=1)
    with pytest.raises(UserError, match="expected a BCP 47 code"):
        prepare_text([str(tmp_path)], out, "한국어", workers=1)


def test_shards_depend_on_the_corpus_alone(tmp_path):
    for name, size in (("a", 5), ("b", 7), ("c", 100), ("d", 3)):
        (tmp_path / f"{name}.txt").write_bytes(b"x" * size)
    files, _ = list_files([str(tmp_path)], "auto")
    sizes = [
        [(piece.file.url[-5], piece.size) for piece in shard] for shard in plan_shards(files, "line", 11)
    ]
    assert sizes[0] == [("a", 5), ("b", 7)]
    assert [name for [(name, _)] in sizes[1:-1]] == ["c"] * 10
    assert sizes[-1] == [("d", 3)]
    assert default_shard_bytes(files) == 32 << 20


def test_a_finished_store_is_replaced_only_with_overwrite(tmp_path):
    (tmp_path / "a.txt").write_text("old\n")
    out = tmp_path / "store"
    prepare_text([str(tmp_path / "a.txt")], out, "ko", workers=1, shard_bytes=2)
    before = contents(out)
    (tmp_path / "a.txt").write_text("new\n")
    with pytest.raises(UserError, match=r"finished store.*--overwrite"):
        prepare_text([str(tmp_path / "a.txt")], out, "ko", workers=1)
    with pytest.raises(UserError, match="found nothing"):
        prepare_text([str(tmp_path / "missing")], out, "ko", workers=1, overwrite=True)
    assert contents(out) == before
    prepare_text([str(tmp_path / "a.txt")], out, "ko", workers=1, overwrite=True)
    assert documents(out) == ["new"]
    assert sorted(contents(out)) == ["00000.bytes", "00000.offsets", "errors.jsonl", "store.json"]
    with pytest.raises(UserError, match="neither empty nor a store"):
        prepare_text([str(tmp_path / "a.txt")], tmp_path, "ko", workers=1, overwrite=True)


@pytest.fixture
def full_disk(monkeypatch):
    """Writing shard 1 fails because the disk is full."""
    make_shard = prepare.make_shard

    def interrupted(directory, number, *rest):
        if number == 1:
            raise OSError(28, "No space left on device")
        return make_shard(directory, number, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "make_shard", interrupted)
        yield patched


def test_overwrite_replaces_an_unfinished_store_with_other_settings(tmp_path, full_disk):
    (tmp_path / "a.txt").write_text("0\n1\n2\n")
    out = tmp_path / "store"
    with pytest.raises(UserError, match="No space left"):
        prepare_text([str(tmp_path / "a.txt")], out, "ko", workers=1, shard_bytes=2)
    full_disk.undo()
    for path, options in ((out, {"overwrite": True}), (tmp_path / "fresh", {})):
        summary = prepare_text([str(tmp_path / "a.txt")], path, "en", separator=b"\0", workers=1, **options)
        assert summary.shards_found == 0
    assert contents(out) == contents(tmp_path / "fresh")


def test_an_unfinished_store_is_continued_only_with_the_same_settings(tmp_path, full_disk):
    inputs = [str(tmp_path / name) for name in ("a.txt", "b.txt", "c.txt")]
    for name in inputs:
        Path(name).write_text(f"{Path(name).name}\n")
    out = tmp_path / "store"
    with pytest.raises(UserError, match="No space left on device; finished shards are kept"):
        prepare_text(inputs, out, "ko", workers=1, shard_bytes=6)
    full_disk.undo()
    with pytest.raises(UserError, match="unfinished text store"):
        Store(out)
    first = (out / "00000.bytes").stat()
    original_times = (Path(inputs[2]).stat().st_mtime_ns,) * 2

    Path(inputs[2]).write_text("changed\n")
    for changed, difference in [
        ({"inputs": inputs, "language": "en"}, "language was 'ko', is now 'en'"),
        ({"inputs": inputs, "reading": ReadOptions(field="body")}, "field was 'text', is now 'body'"),
        ({"inputs": inputs[:2]}, "the input .*c.txt is gone"),
        ({"inputs": inputs}, "the input .*c.txt has changed"),
    ]:
        with pytest.raises(UserError, match=difference):
            prepare_text(out=out, workers=1, shard_bytes=6, **({"language": "ko"} | changed))
    Path(inputs[2]).write_text("c.txt\n")
    os.utime(inputs[2], ns=(0, 0))
    with pytest.raises(UserError, match="has changed"):
        prepare_text(inputs, out, "ko", workers=1, shard_bytes=6)
    os.utime(inputs[2], ns=original_times)
    summary = prepare_text(inputs, out, "ko", workers=1, shard_bytes=6)
    assert (summary.shards, summary.shards_found, summary.documents) == (3, 1, 3)
    assert (out / "00000.bytes").stat() == first


def test_a_file_name_that_is_not_utf_8_is_listed_unchanged(tmp_path):
    file = os.fsdecode(os.fsencode(tmp_path / "a") + b"\xff.txt")
    with open(file, "wb") as opened:
        opened.write(b"ok\nnul \0\n" + b"fine\n" * 31)
    prepare_text([file], tmp_path / "store", "ko", workers=1)
    assert [problem.file for problem in read_problems(tmp_path / "store")] == [file]


KILLED = """
import os, signal, sys
from kebyt5_xm.commands.prepare import prepare_text

replace, left = os.replace, int(sys.argv[3])

def kill(source, target):
    global left
    left -= 1
    if not left and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = kill
prepare_text([sys.argv[1]], sys.argv[2], "ko", workers=1, shard_bytes=500)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_any_rename_costs_only_the_current_shard(tmp_path, moment):
    (tmp_path / "a.txt").write_bytes(b"\n".join(b"line %d" % i for i in range(211)) + b"\n\0\n")
    prepare_text([str(tmp_path / "a.txt")], tmp_path / "whole", "ko", workers=1, shard_bytes=500)
    out = tmp_path / "store"
    kills = 0
    # The n-th run is killed at its n-th rename: of the unfinished store's index, a shard's files or its report.
    while not (out / "store.json").exists():
        kills += 1
        done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.txt", out, str(kills), moment])
        assert done.returncode in (0, -signal.SIGKILL)
    assert kills > 4
    kept = {"unfinished.json", *(f"{i:05d}.{kind}" for i in range(4) for kind in ("json", "errors.jsonl"))}
    assert {name: data for name, data in contents(out).items() if name not in kept} == contents(
        tmp_path / "whole"
    )


ORPHANED = """
import multiprocessing, os, signal, sys
from kebyt5_xm.commands import prepare

run_jobs = prepare.run_jobs

def killed(*arguments):
    for result in run_jobs(*arguments):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        yield result

if __name__ == "__main__":
    prepare.run_jobs = killed
    prepare.prepare_text([sys.argv[1]], sys.argv[2], "ko", workers=2, shard_bytes=500)
"""


@pytest.mark.slow
def test_workers_end_with_their_parent_and_do_not_change_the_store(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n".join(b"line %d" % i for i in range(2111)) + b"\n\0\n")
    inputs, out = [str(tmp_path / "a.txt")], tmp_path / "store"
    (tmp_path / "orphaned.py").write_text(ORPHANED)
    done = subprocess.run(
        [sys.executable, tmp_path / "orphaned.py", *inputs, out], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == -signal.SIGKILL
    children = [int(pid) for pid in done.stdout.split()]
    assert len(children) == 2
    for child in children:
        if psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            psutil.Process(child).wait(timeout=60)
    summary = prepare_text(inputs, out, "ko", workers=2, shard_bytes=500)
    assert 1 <= summary.shards_found < summary.shards
    prepare_text(inputs, tmp_path / "alone", "ko", workers=1, shard_bytes=500)
    assert contents(out) == contents(tmp_path / "alone")


def test_the_command_prints_a_table_and_the_first_problems(tmp_path, capsys):
    (tmp_path / "a.txt").write_bytes(b"good\n" + b"bad \xff\n" * 23)
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    command = [
        "text",
        str(tmp_path),
        "--out",
        str(tmp_path / "store"),
        "--language",
        "ko",
        "--separator",
        r"\n\t가",
    ]
    prepare.run(parser.parse_args([*command, "--workers", "1", "--max-skipped", "1"]))
    printed = capsys.readouterr()
    assert printed.out.splitlines()[:3] == ["documents      1", "bytes          9", "invalid UTF-8  23"]
    assert printed.out.splitlines()[-1] == f"next: kebyt5-xm inspect {tmp_path / 'store'}"
    assert Store(tmp_path / "store").separator == "\n\t가".encode()
    shown = printed.err.splitlines()
    assert shown[0] == f"{tmp_path / 'a.txt'}:2: invalid UTF-8 (0xff at byte 4)"
    assert len(shown) == 21
    assert "errors.jsonl" in shown[20]


def test_preparing_imports_no_model():
    script = (
        "import sys, kebyt5_xm.commands.prepare, kebyt5_xm.commands.inspect;"
        "print({'torch', 'transformers', 'pandas', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "set()\n"


def test_too_many_skipped_documents_are_an_error(tmp_path):
    good, bad = b'{"text": "a"}\n', b'{"txt": "a"}\n'
    out, file = tmp_path / "store", tmp_path / "a.jsonl"
    file.write_bytes(bad + good * 12)
    assert prepare_text([str(file)], out, "ko", workers=1).problems == {"no field": 1}  # 1 of 13
    file.write_bytes(bad * 2 + good * 17)
    with pytest.raises(UserError, match=r"2 of 19 documents .*2 x no field.*first: .*a.jsonl:1: no field.*"):
        prepare_text([str(file)], tmp_path / "other", "ko", workers=1)
    assert not (tmp_path / "other" / "store.json").exists()
    # The finished shards are used by a run with a higher limit.
    summary = prepare_text([str(file)], tmp_path / "other", "ko", workers=1, max_skipped=0.2)
    assert (summary.documents, summary.shards_found) == (17, 1)
    with pytest.raises(UserError, match=r"max_skipped is 1\.5, expected a share"):
        prepare_text([str(file)], tmp_path / "no", "ko", max_skipped=1.5)
    # Documents that are kept in spite of a problem do not count as skipped.
    (tmp_path / "b.txt").write_bytes(b"a\xff\n" * 3)
    reading = ReadOptions(invalid_utf8="keep")
    assert prepare_text([str(tmp_path / "b.txt")], tmp_path / "kept", "ko", reading, workers=1).documents == 3


@pytest.mark.parametrize("start", [b"[", b"\xef\xbb\xbf \n[\n"])
def test_one_json_array_is_refused_and_leaves_nothing(tmp_path, start):
    (tmp_path / "a.json").write_bytes(start + b'{"text": "a"},\n' * 13 + b'{"text": "b"}\n]')
    for shard_bytes in (None, 100):
        with pytest.raises(UserError, match=r"a.json begins as one JSON array.*jq -c"):
            prepare_text([str(tmp_path / "a.json")], tmp_path / "s", "ko", workers=1, shard_bytes=shard_bytes)
        assert not (tmp_path / "s").exists()


TEXTS = ["가나", "다라", None, "마"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS, pa.string()),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS, pa.string()).dictionary_encode(),
        pa.array(TEXTS, pa.large_string()).dictionary_encode(),
        pa.array([text and text.encode() for text in TEXTS], pa.binary()),
        pa.array([text and text.encode() for text in TEXTS], pa.large_binary()),
        pa.array([text and text.encode() for text in TEXTS], pa.binary_view()),
        pa.array([b"abcde", b"fghij", None, b"klmno"], pa.binary(5)),
        pa.array(['"a"', "{}", None, "1"], pa.json_()),
    ],
    ids=lambda column: str(column.type),
)
def test_texts_are_read_from_parquet_columns_of_any_type(tmp_path, column):
    expected = [text.decode() if isinstance(text, bytes) else text for text in column.to_pylist() if text]
    nested = pa.StructArray.from_arrays([column], ["ko"])
    table = pa.table({"text": column, "pair": nested, "more.ko": column})
    group = 4 if "view" in str(column.type) else 3  # pyarrow cannot write part of a view
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    for field in ("text", "pair.ko", "more.ko"):
        reading = ReadOptions(field=field)
        out = tmp_path / field
        prepare_text([str(tmp_path / "a.parquet")], out, "ko", reading, workers=1, max_skipped=0.5)
        assert documents(out) == expected
        assert listed(out) == [("a.parquet", 3, "not text")]


def test_a_nested_field_of_a_json_line_is_read(tmp_path):
    lines = ['{"t": {"ko": "가"}}', '{"t.ko": "나", "t": {"ko": "x"}}', '{"t": null}', '{"t": {"en": "b"}}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare_text([str(tmp_path)], tmp_path / "s", "ko", ReadOptions(field="t.ko"), workers=1, max_skipped=1)
    assert documents(tmp_path / "s") == ["가", "나"]
    assert listed(tmp_path / "s") == [("a.jsonl", 3, "not text"), ("a.jsonl", 4, "no field")]


@pytest.mark.parametrize(("suffix", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_frames_of_bzip2_and_xz(tmp_path, monkeypatch, suffix, compress):
    monkeypatch.setattr("kebyt5_xm.data.text.blocks.READ_BYTES", 7)
    monkeypatch.setattr("kebyt5_xm.data.text.blocks.BLOCK_BYTES", 11)
    first, second = compress(b"one\n" * 31), compress(b"two\n" * 5)
    file = tmp_path / f"a.txt.{suffix}"
    for end, number, problems in (
        (b"", 36, {}),
        (b"\0" * 8, 36, {}),
        (b"garbage", 36, {"damaged file": 1}),
        (second[:-5], None, {"damaged file": 1}),
    ):
        file.write_bytes(first + second + end)
        summary = prepare_text([str(file)], tmp_path / "s", "ko", workers=1, overwrite=True)
        assert (number is None or summary.documents == number, summary.problems) == (True, problems), end
