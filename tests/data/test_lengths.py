"""Length tables: what headers promise is what decoding gives, and a changed file is found out."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
from PIL import Image

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import FrameStacking, Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.sources.measuring import check_usable
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface


def interfaces(**patches: Any) -> dict[str, MediaInterface]:
    image = PatchEncoder(**{"image_size": 16, "out_dim": 8, **patches})
    speech = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    return {
        "image": interface(image, Linear, 20),
        "speech": interface(
            speech, lambda in_dim, d_model: FrameStacking(in_dim, d_model, 1, begin_end=True), 20
        ),
    }


def manifest(folder: Path, modalities: dict[str, MediaInterface] | None = None) -> Manifest:
    """Rows with a recording, an image, both and none, through one manifest."""
    if not (folder / "mixed.jsonl").exists():
        tiny_media.write_media(folder)
        images = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
        speech = [json.loads(line) for line in (folder / "speech.jsonl").read_text().splitlines()]
        rows = [
            {"media": row["picture"], "sound": sound["recording"], "text": "말" * n}
            for n, (row, sound) in enumerate(zip(images, speech, strict=False))
        ]
        tiny_media.write_manifest(folder / "mixed.jsonl", rows)
    source = Manifest(
        str(folder / "mixed.jsonl"),
        prompt="{media:image} 그리고 {sound:speech}",
        target="{text}",
        max_target_length=23,
    )
    source.connect(modalities or interfaces())
    return source


def everything(source: Manifest) -> Selection:
    rows = np.arange(source.parts()[0].num_rows)
    return Selection(np.zeros_like(rows), rows, rows.astype(np.uint64), seed=0, held_out=False)


def test_headers_promise_exactly_what_decoding_gives(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    lengths = source.lengths(everything(source))
    examples = source.load(everything(source))
    for promised, example in zip(lengths.tolist(), examples, strict=True):
        if example.skipped is None:
            assert promised == [len(example.input_ids), len(example.target_ids)]
        else:  # a target of more than 23 bytes
            assert promised == [0, 0]
            assert "limit 23" in example.skipped.cause
    assert len(set(lengths[:, 0].tolist())) > 3, "recordings of many lengths"
    assert sum(example.skipped is not None for example in examples) == 3


def test_the_table_is_made_once_and_in_processes_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = manifest(tmp_path)
    monkeypatch.setattr("kebyt5_xm.data.sources.lengths.JOB_ROWS", 3)
    monkeypatch.setattr("kebyt5_xm.data.sources.lengths.ROWS_FOR_PROCESSES", 1)
    done: list[int] = []
    source.prepare(workers=2, progress=done.append)
    assert sum(done) == tiny_media.NUM_RECORDINGS
    (table,) = tmp_path.glob("mixed.jsonl.lengths-*")
    expected = source.lengths(everything(source))
    made = table.stat().st_ino
    again = manifest(tmp_path)
    monkeypatch.setattr(PromptTable, "measure", lambda *_: pytest.fail("measured again"))
    np.testing.assert_array_equal(again.lengths(everything(again)), expected)
    assert table.stat().st_ino == made
    table.unlink()
    monkeypatch.undo()
    np.testing.assert_array_equal(manifest(tmp_path).lengths(everything(source)), expected)


@pytest.mark.parametrize("change", [{"image_size": 32}, {"patch_size": 4}])
def test_other_preprocessing_has_a_table_of_its_own(tmp_path: Path, change: dict[str, int]) -> None:
    first = manifest(tmp_path)
    before = first.lengths(everything(first))
    other = manifest(tmp_path, interfaces(**change))
    after = other.lengths(everything(other))
    usable = before[:, 0] > 0
    assert (after[usable, 0] > before[usable, 0]).all()
    assert len(list(tmp_path.glob("mixed.jsonl.lengths-*"))) == 2
    assert first.settings() != other.settings()


def test_another_adapter_has_a_table_of_its_own(tmp_path: Path) -> None:
    first = manifest(tmp_path)
    first.lengths(everything(first))
    modalities = interfaces()
    speech = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    modalities["speech"] = interface(speech, lambda f, d: FrameStacking(f, d, begin_end=True, stack=2), 20)
    other = manifest(tmp_path, modalities)
    assert not np.array_equal(other.lengths(everything(other)), first.lengths(everything(first)))


def test_a_medium_that_changed_since_is_left_out_with_the_reason(tmp_path: Path) -> None:
    modalities = interfaces(keep_aspect_ratio=True)
    source = manifest(tmp_path, modalities)
    source.lengths(everything(source))
    Image.new("RGB", (97, 11)).save(tmp_path / "2.png")
    os.remove(tmp_path / "4.png")
    examples = manifest(tmp_path, modalities).load(everything(source))
    changed, missing = examples[2].skipped, examples[4].skipped
    assert changed is not None
    assert "when the length table was made" in changed.cause
    assert (changed.line, changed.path) == (3, str(tmp_path / "mixed.jsonl"))
    assert missing is not None
    assert missing.path.endswith("4.png")
    assert not examples[2].counted
    assert not examples[4].counted


def test_rows_whose_media_came_since_are_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = manifest(tmp_path)
    expected = np.array(whole.lengths(everything(whole)))
    (table,) = tmp_path.glob("mixed.jsonl.lengths-*")
    table.unlink()
    for name in ("2.png", "4.png"):
        (tmp_path / name).rename(tmp_path / f"away-{name}")
    first = manifest(tmp_path)
    first.prepare(1, lambda _: None)
    assert first.impossible()[0] == 3 + 2
    (tmp_path / "away-2.png").rename(tmp_path / "2.png")
    (come,) = first.load(Selection(*(np.array([n]) for n in (0, 2)), np.array([2], np.uint64), 0, False))
    assert come.skipped is not None
    assert "is used from the next start on" in come.skipped.cause

    caplog.clear()
    second, done = manifest(tmp_path), []
    second.prepare(1, done.append)
    assert sum(done) == 3 + 2
    assert second.impossible()[0] == 3 + 1
    assert "4 of" in caplog.text
    assert "no such file (1)" in caplog.text
    assert first.settings() != second.settings(), "a run that began before keeps its own table"
    assert first.impossible()[0] == 3 + 2

    (tmp_path / "away-4.png").rename(tmp_path / "4.png")
    third = manifest(tmp_path)
    third.prepare(1, lambda _: None)
    np.testing.assert_array_equal(third.lengths(everything(third)), expected)
    assert len(list(tmp_path.glob("mixed.jsonl.lengths-*"))) == 1


def test_a_table_is_sent_to_a_worker_as_its_path_unless_another_has_its_name(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    expected = np.array(source.lengths(everything(source)))
    (path,) = tmp_path.glob("mixed.jsonl.lengths-*")
    sent = pickle.dumps(source)
    assert expected.astype(np.int32).tobytes() not in sent
    assert isinstance(pickle.loads(sent)._table(False).lengths, np.memmap)
    np.testing.assert_array_equal(pickle.loads(sent).lengths(everything(source)), expected)
    raw = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="removed or changed while a run began"):
        pickle.loads(sent)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).lengths(everything(source)), expected)
    path.write_bytes(raw.replace(b'"digest": "', b'"digest": "0'))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source)).lengths(everything(source)), expected)


def test_tables_of_other_contents_that_nobody_uses_are_removed(tmp_path: Path) -> None:
    def tables() -> set[Path]:
        return set(tmp_path.glob("mixed.jsonl.lengths-*"))

    def prepared(**patches: Any) -> set[Path]:
        before = tables()
        manifest(tmp_path, interfaces(**patches)).prepare(1, lambda _: None)
        return tables() - before

    old, old_used, foreign = prepared(), prepared(image_size=32), tmp_path / "mixed.jsonl.lengths-notes"
    foreign.write_text("mine")
    for path in (*old, foreign):
        os.utime(path, (0, 0))
    rows = (tmp_path / "mixed.jsonl").read_text()
    assert prepared(image_size=32) == set()
    assert old < tables(), "nothing has been made"
    (tmp_path / "mixed.jsonl").write_text(rows + rows.splitlines()[0] + "\n")
    other = prepared()
    assert tables() == old_used | other | {foreign}
    for path in (*old_used, *other):
        os.utime(path, (0, 0))
    assert prepared() == set()
    assert other < tables(), "it is in use again"
    assert prepared(image_size=24)
    assert not old_used & tables()


def test_a_damaged_table_is_made_anew(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    expected = source.lengths(everything(source)).copy()
    (table,) = tmp_path.glob("mixed.jsonl.lengths-*")
    whole = table.read_bytes()
    for damage in (whole[:-8], b"", b"{}" + whole[2:], whole + b"\0"):
        table.write_bytes(damage)
        np.testing.assert_array_equal(manifest(tmp_path).lengths(everything(source)), expected)
        assert table.read_bytes() == whole


def test_rows_longer_than_a_budget_has_room_for_end_a_run_before_it_begins(tmp_path: Path) -> None:
    source = manifest(tmp_path)
    lengths = source.lengths(everything(source)).max(axis=1)
    longest = int(np.median(lengths[lengths > 0]))
    without = int((lengths == 0).sum())
    bad = without + int((lengths > longest).sum())
    assert without < bad < len(lengths)
    check_usable({"mixed": source}, bad / len(lengths), longest)
    with pytest.raises(UserError, match=rf"{bad} of {len(lengths)} rows .* at most {longest} positions"):
        check_usable({"mixed": source}, (bad - 1) / len(lengths), longest)
