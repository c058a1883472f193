"""Text stores: documents are read back as written for any shard size, and damage is reported."""

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kebyt5_xm.commands import inspect
from kebyt5_xm.data.media import open_files
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.data.text.store_writer import StoreWriter
from kebyt5_xm.errors import UserError

DOCUMENTS = [
    "하늘이 맑다".encode(),
    b"",
    b"two\nlines",
    "東京は広い".encode(),
    b"a" * 101,
    bytes(range(1, 256)),
    "안녕\n".encode(),
]


def write(path: Path, documents=DOCUMENTS, language="ko", **settings) -> Store:
    with StoreWriter(path, language, **settings) as writer:
        for document in documents:
            writer.write(document)
    return Store(path)


@pytest.mark.parametrize("separator", [b"\n", b"", "〃\0".encode()])
@pytest.mark.parametrize("shard_bytes", [1, 17, 113, 1 << 20])
def test_documents_and_chunks_are_read_back_as_written(tmp_path, separator, shard_bytes):
    opened = write(tmp_path / "store", separator=separator, shard_bytes=shard_bytes)
    text = b"".join(document + separator for document in DOCUMENTS)
    assert (opened.num_documents, opened.num_bytes, opened.language) == (len(DOCUMENTS), len(text), "ko")
    assert (len(opened.shards) > 1) == (shard_bytes < len(text))
    assert [opened.document(i) for i in range(len(DOCUMENTS))] == DOCUMENTS
    assert [opened.document_length(i) for i in range(len(DOCUMENTS))] == [len(d) for d in DOCUMENTS]
    for length in (1, 7, 13, len(text)):
        rows = np.random.default_rng(3).integers(0, opened.num_chunks(length), 211)
        expected = [text[row * length : (row + 1) * length] for row in rows.tolist()]
        chunks = opened.chunks(rows, length)
        assert chunks.dtype == np.uint8
        assert chunks.shape == (211, length)
        assert [chunk.tobytes() for chunk in chunks] == expected
    assert opened.chunks(np.empty(0, np.int64), 7).shape == (0, 7)
    assert opened.num_chunks(len(text) + 1) == 0


def test_indices_out_of_range_are_refused(tmp_path):
    opened = write(tmp_path / "store")
    for row in (-1, opened.num_chunks(7)):
        with pytest.raises(IndexError, match="chunks"):
            opened.chunks(np.array([0, row]), 7)
    for index in (-1, len(DOCUMENTS)):
        with pytest.raises(IndexError, match="document"):
            opened.document(index)


def test_a_store_can_be_pickled_and_keeps_few_files_open(tmp_path, monkeypatch):
    opened = write(tmp_path / "store", shard_bytes=1)
    open_files._open.clear()
    monkeypatch.setattr(open_files, "MAX_FILES", 2)
    rows = np.arange(opened.num_chunks(11))
    expected = opened.chunks(rows, 11)
    assert len(open_files._open) == 2
    sent = pickle.dumps(opened)
    assert len(sent) < 400  # the path and the fingerprint, no list of shards
    assert (pickle.loads(sent).chunks(rows, 11) == expected).all()
    index = json.loads((tmp_path / "store/store.json").read_text())
    (tmp_path / "store/store.json").write_text(json.dumps(index | {"language": "en"}))
    with pytest.raises(UserError, match="was rewritten"):
        pickle.loads(sent)


FORKED = """
import os, sys
import numpy as np
from kebyt5_xm.data.text.store import Store

store = Store(sys.argv[1])
rows = np.arange(store.num_chunks(11))
expected = store.chunks(rows, 11)
child = os.fork()
if child == 0:
    os._exit(0 if (store.chunks(rows[::-1], 11) == expected[::-1]).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (store.chunks(rows, 11) == expected).all()
"""


def test_a_store_survives_a_fork(tmp_path):
    write(tmp_path / "store", shard_bytes=113)
    subprocess.run(
        [sys.executable, "-c", FORKED, tmp_path / "store"], check=True
    )  # a process without threads


def test_the_fingerprint_depends_on_contents_not_on_the_path(tmp_path):
    fingerprints = [
        write(tmp_path / "0").fingerprint,
        write(tmp_path / "1", [*DOCUMENTS[:-1], b"other"]).fingerprint,
        write(tmp_path / "2", language="ja").fingerprint,
        write(tmp_path / "3", [b"".join(DOCUMENTS)], separator=b"").fingerprint,
        write(tmp_path / "4", DOCUMENTS, separator=b"").fingerprint,  # the same bytes, other documents
    ]
    assert len(set(fingerprints)) == 5
    assert write(tmp_path / "5").fingerprint == fingerprints[0]


def test_a_folder_that_is_not_a_store_is_refused_in_one_line(tmp_path):
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            Store(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "found nothing" in refusal(tmp_path / "missing")
    assert "not a text store" in refusal(tmp_path)
    (tmp_path / "unfinished.json").write_text("{}")
    assert "unfinished" in refusal(tmp_path)
    for contents in ("[]", '{"version": 1}'):
        (tmp_path / "store.json").write_text(contents)
        assert "not the index of a text store" in refusal(tmp_path)
    (tmp_path / "store.json").write_text("{")
    assert "damaged" in refusal(tmp_path)


def test_a_newer_or_truncated_store_is_refused(tmp_path):
    path = tmp_path / "store"
    opened = write(path, shard_bytes=113)
    assert len(opened.shards) == 3
    index = (path / "store.json").read_text()
    (path / "store.json").write_text(json.dumps(json.loads(index) | {"version": 2}))
    with pytest.raises(UserError, match=r"version 2.*upgrade"):
        Store(path)
    (path / "store.json").write_text(index)
    size = opened.shards[1].bytes
    os.truncate(path / "00001.bytes", size - 1)
    with pytest.raises(
        UserError, match=rf"00001\.bytes is {size - 1} bytes long, expected {size} .*--overwrite"
    ):
        Store(path)
    (path / "00001.bytes").unlink()
    with pytest.raises(UserError, match=r"00001\.bytes is missing"):
        Store(path)


def test_a_store_that_changes_while_in_use_is_an_error(tmp_path):
    opened = write(tmp_path / "store", shard_bytes=113)
    rows = np.arange(opened.num_chunks(11))
    os.truncate(tmp_path / "store/00001.bytes", 5)
    with pytest.raises(UserError, match="became shorter"):
        opened.chunks(rows, 11)
    (tmp_path / "store/00002.bytes").unlink()
    with pytest.raises(UserError, match=r"cannot read .*00002.*No such file"):
        opened.document(opened.num_documents - 1)


def test_the_writer_overwrites_nothing_and_leaves_no_partial_files(tmp_path):
    write(tmp_path / "store")
    with pytest.raises(UserError, match="exists"):
        StoreWriter(tmp_path / "store", "ko")
    with pytest.raises(UserError, match="0 documents"), StoreWriter(tmp_path / "empty", "ko"):
        pass
    with pytest.raises(KeyError), StoreWriter(tmp_path / "half", "ko") as writer:  # noqa: PT012
        writer.write(b"text")
        raise KeyError
    assert list((tmp_path / "half").iterdir()) == []


def run_inspect(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    inspect.add_arguments(parser)
    inspect.run(parser.parse_args([str(argument) for argument in arguments]))


def test_inspect_shows_the_store_and_verifies_it(tmp_path, capsys):
    path = tmp_path / "store"
    write(path, shard_bytes=113)
    run_inspect(path, "--verify")
    shown = capsys.readouterr().out
    for expected in (
        "language         ko",
        "documents        7",
        "하늘이 맑다",
        "3 shards are what was written",
    ):
        assert expected in shown
    with (path / "00002.bytes").open("r+b") as file:
        file.write(b"\x00")
    with pytest.raises(UserError, match=r"1 of 3 shards .*00002"):
        run_inspect(path, "--verify")


def test_script_shares_count_bytes():
    shares = inspect.script_shares(
        [
            "a한漢か é".encode(),
            "ｱ𠀀".encode(),
            b"\xff\xed\xa0\x80",
        ]  # half-width kana, four-byte Han, a surrogate
    )
    counts = {"ASCII": 2, "Hangul": 3, "Han": 3 + 4, "Kana": 3 + 3, "other": 2, "invalid UTF-8": 4}
    assert shares == pytest.approx({name: count / 24 for name, count in counts.items()})
