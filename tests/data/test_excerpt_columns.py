"""Sources whose rows take excerpts: slots without decoding, caches, shards, and errors by row and column."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_media
import torch

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.contract import SourceContract
from kebyt5_xm.data.layouts import Delimited
from kebyt5_xm.data.media import opening
from kebyt5_xm.data.media.feature_cache import CacheMiss, FeatureCache, Segment
from kebyt5_xm.data.media.interface import MediaInterface, cache_key
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.media.recordings import audio
from kebyt5_xm.data.sources.source import Selection, Source
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface

RATE = tiny_media.SAMPLE_RATE
TIMES = {"offset": "from", "duration": "lasts"}
ROWS: list[dict[str, Any]] = [
    {"sound": "long.wav", "from": 0, "lasts": 1.25, "text": "a"},
    {"sound": "long.wav", "from": "1.25", "lasts": "0.75", "text": "b"},
    {"sound": "long.wav", "from": 1.0, "lasts": 0.75, "text": "overlaps"},
    {"sound": "long.wav", "from": 6.5, "lasts": None, "text": "to the end"},
    {"sound": "long.wav", "from": None, "lasts": 0.5, "text": "from the start"},
    {"sound": "long.wav", "from": "", "lasts": 0.5, "text": "from the start"},
    {"sound": "long.flac", "from": 6.75, "lasts": 0.65, "text": "over the end by 0.4 s"},
    {"sound": "short.wav", "text": "whole"},
]
SECONDS = [(0, 1.25), (1.25, 2), (1, 1.75), (6.5, 7), (0, 0.5), (0, 0.5), (6.75, 7), (0, 0.3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("excerpts")
    samples = np.random.default_rng(5).uniform(-0.5, 0.5, 7 * RATE)
    for name in ("long.wav", "long.flac"):
        soundfile.write(folder / name, samples, RATE)
    soundfile.write(folder / "short.wav", samples[: 3 * RATE // 10], RATE)
    tiny_media.write_manifest(folder / "rows.jsonl", ROWS)
    return folder


def modalities() -> dict[str, MediaInterface]:
    encoder = LogMelEncoder(out_dim=13, sample_rate=RATE, num_mels=11)
    return {
        "speech": interface(encoder, Linear, 29),
        "image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 29),
    }


def manifest(path: Path, prompt: str = "{sound:speech}", connect: bool = True, **settings: Any) -> Manifest:
    source = Manifest(str(path), prompt, "{text}", **{**TIMES, **settings})
    if connect:
        source.connect(modalities())
    return source


def everything(source: Source) -> Selection:
    return Selection.rows(0, 0, source.parts()[0].num_rows, held_out=False)


def causes(path: Path, rows: list[dict[str, Any]], **settings: Any) -> list[str]:
    """Return why each row of a manifest gives no example, which lengths and loading must agree on."""
    tiny_media.write_manifest(path, rows)
    source = manifest(path, **settings)
    lengths = source.lengths(everything(source))
    found = source.load(everything(source))
    assert [example.skipped is None for example in found] == lengths.any(axis=1).tolist()
    prompts = source.prompts(held_out=False)
    assert prompts is not None
    measured = [prompts.measure(row) for row in range(len(rows))]
    assert all(
        example.skipped is None or told == example.skipped.cause
        for example, told in zip(found, measured, strict=True)
    )
    return ["" if example.skipped is None else example.skipped.cause for example in found]


class TestExcerpts(SourceContract):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Source:
        path = self.folder / "rows.jsonl"
        return manifest(path, connect=False, validation=str(path), max_source_length=50)

    def interfaces(self) -> dict[str, MediaInterface]:
        return modalities()


def test_rows_hold_their_excerpts_and_slots_are_known_without_decoding(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = manifest(folder / "rows.jsonl")
    speech = modalities()["speech"]
    with monkeypatch.context() as patch:
        patch.setattr(audio, "_checked_blocks", None)
        slots = source.lengths(everything(source))[:, 0] - 1
    loaded = source.load(everything(source))
    for row, example, (begin, end), count in zip(ROWS, loaded, SECONDS, slots, strict=True):
        waveform = open_audio(folder / row["sound"])[0][round(begin * RATE) : round(end * RATE)]
        prepared, expected = speech.prepare((waveform, RATE))
        assert example.media[0].count == expected == count
        assert torch.equal(example.media[0].prepared, prepared)


def test_the_limit_is_of_the_excerpts_and_not_of_their_file(folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "sound": str(folder / row["sound"])} for row in ROWS]
    limits = opening.Limits(max_seconds=1.0)
    found = causes(tmp_path / "rows.jsonl", rows, limits=limits, allow_outside=True)
    assert [bool(cause) for cause in found] == [end - begin > 1 for begin, end in SECONDS]
    assert "found 1.2 seconds, expected at most 1; raise max_seconds" in found[0]


@pytest.mark.parametrize(
    ("times", "cause"),
    [
        ({"from": "abc"}, "column 'from' is 'abc', expected seconds as a number from 0 to 10,000,000"),
        ({"from": -1}, "column 'from' is '-1', expected seconds"),
        ({"from": True}, "column 'from' is 'True', expected seconds"),
        ({"from": [1]}, "column 'from' is '[1]', expected seconds"),
        ({"from": float("nan")}, "column 'from' is 'nan', expected seconds"),
        ({"lasts": float("inf")}, "column 'lasts' is 'inf', expected seconds"),
        ({"lasts": -0.5}, "column 'lasts' is '-0.5', expected seconds"),
        ({"lasts": 0}, "column 'lasts' is a length of 0 seconds, expected more"),
        (
            {"from": 6, "lasts": 1.6},
            "found a recording of 7.000 s, expected one that holds 6 to 7.6 s; correct",
        ),
        ({"from": 7, "lasts": None}, "expected one that holds 7 s to its end"),
        ({"lasts": 1e-5}, "found no sample from 0.5 s on for 1e-05 s, expected at least one"),
        ({"sound": ["long.wav", "short.wav"]}, "found a list of recordings, expected one"),
        ({"sound": "none.wav"}, "there is no such file"),
        ({}, ""),
    ],
)
def test_a_row_with_impossible_times_is_skipped_and_named(
    folder: Path, times: dict[str, Any], cause: str
) -> None:
    row = {"sound": "long.wav", "from": 0.5, "lasts": 0.5, "text": "a", **times}
    found = causes(folder / "bad.jsonl", [row, ROWS[0]])
    assert cause in found[0]
    assert bool(cause) == bool(found[0])
    assert not found[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"offset": "form"},
            r"found `offset: form`, expected a column of the table: from, lasts, sound, text; did you mean 'from'",
        ),
        ({"duration": "lengths"}, r"found `duration: lengths`, expected a column of the table"),
        (
            {"prompt": "{text}"},
            r"found `offset: from` and `duration: lasts`, expected a recording in the prompt",
        ),
        (
            {"prompt": "{sound:image}", "duration": None},
            r"found `offset: from` for \{sound:image\}, which is no rec",
        ),
        (
            {"prompt": "{sound:speech}{text:speech}"},
            r"recordings from the columns sound, text, expected one column",
        ),
    ],
)
def test_columns_that_cannot_be_meant_are_refused_before_the_run(
    folder: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        manifest(folder / "rows.jsonl", **settings)


def test_an_image_beside_the_recording_stays_whole(folder: Path) -> None:
    tiny_media.write_media(folder)
    rows = [{**row, "face": f"{n}.png"} for n, row in enumerate(ROWS)]
    assert not any(causes(folder / "faces.jsonl", rows, prompt="{face:image}{sound:speech} {sound:speech}"))


def test_held_out_rows_and_length_tables_have_the_times_too(folder: Path) -> None:
    path = folder / "rows.jsonl"
    source = manifest(path, validation=str(path))
    selection = Selection.rows(0, 0, len(ROWS), held_out=True)
    expected = source.lengths(everything(source))
    assert np.array_equal(source.lengths(selection), expected)
    whole = manifest(path, offset=None)
    assert whole.lengths(everything(whole))[3, 0] > expected[3, 0]
    assert whole.settings()["duration"] == "lasts"
    assert "offset" not in whole.settings()
    assert {"offset", "duration"} & manifest(path, offset=None, duration=None).settings().keys() == set()


def test_without_the_keys_no_column_name_means_anything(folder: Path) -> None:
    rows = [{"sound": "short.wav", "offset": 5.0, "duration": "three hours", "text": "a"}]
    assert causes(folder / "names.jsonl", rows, offset=None, duration=None) == [""]


def test_a_row_of_nemo_is_not_taken_for_the_whole_recording(folder: Path) -> None:
    rows = [{"audio_filepath": "long.wav", "offset": at, "text": "a"} for at in (0, None, 0.0, 2.5)]
    prompt, path = "{audio_filepath:speech}", folder / "nemo.jsonl"
    for settings in ({"offset": None, "duration": None}, {"offset": None, "duration": "text"}):
        found = causes(path, rows, prompt=prompt, **settings)
        assert "offset 2.5 s on, expected a whole recording; give `offset: offset`" in found[3]
    assert causes(path, rows, prompt=prompt, offset="offset", duration=None) == [""] * 4


@pytest.mark.parametrize("kind", ["parquet bytes", "parquet arrays", "tar", "csv"])
def test_recordings_in_shards_and_columns_have_excerpts(folder: Path, tmp_path: Path, kind: str) -> None:
    raw, samples = (folder / "long.wav").read_bytes(), open_audio(folder / "long.wav")[0]
    settings: dict[str, Any] = {}
    if kind == "tar":
        path = tmp_path / "shard.tar"
        with tarfile.open(path, "w") as file:
            for n, row in enumerate(ROWS[:2]):
                for name, data in (("wav", raw), ("json", json.dumps(row).encode())):
                    member = tarfile.TarInfo(f"{n}.{name}")
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
        settings = {"prompt": "{wav:speech}", "offset": "json.from", "duration": "json.lasts", "target": "t"}
    elif kind == "csv":
        path = tmp_path / "rows.csv"
        (tmp_path / "long.wav").write_bytes(raw)
        path.write_text("sound,from,lasts,text\nlong.wav,0,1.25,a\nlong.wav,1.25,0.75,b\n")
        settings["format"] = Delimited(",")
    else:
        path = tmp_path / "rows.parquet"
        sound: Any = {"bytes": raw, "path": "a.wav"}
        if kind == "parquet arrays":
            sound = {"array": samples.tolist(), "sampling_rate": RATE}
        times = {"from": pa.array([0, 1.25], pa.float32()), "lasts": pa.array([1.25, 0.75], pa.float32())}
        pq.write_table(pa.table({"sound": pa.array([sound] * 2), **times, "text": ["a", "b"]}), path)
    settings = {"prompt": "{sound:speech}", "target": "{text}", **TIMES, **settings}
    source = Manifest(str(path), **settings)
    source.connect(modalities())
    speech = modalities()["speech"]
    for example, (begin, end) in zip(source.load(everything(source)), SECONDS, strict=False):
        assert example.skipped is None
        prepared, _ = speech.prepare((samples[round(begin * RATE) : round(end * RATE)], RATE))
        assert torch.equal(example.media[0].prepared, prepared)


def test_a_cache_keeps_excerpts_of_one_file_apart(folder: Path, tmp_path: Path) -> None:
    source = manifest(folder / "rows.jsonl")
    readables = [medium.readable() for medium in source.media("speech")]
    identities = [medium.identity for medium in source.media("speech")]
    keys = [cache_key(readable) for readable in readables]
    assert [len(set(keys)), len(set(identities))] == [len(ROWS) - 1] * 2  # rows 4 and 5 are the same excerpt
    segment = Segment(tmp_path / "c", {"encoder": "e", "out_dim": 2, "dtype": "float32"})
    for number, key in enumerate(dict.fromkeys(keys[:4])):
        segment.add(key, torch.full((number + 1, 2), float(number)), None)
    segment.finish()
    cached = modalities()["speech"]
    cached.cache = FeatureCache(tmp_path / "c")
    for number, readable in enumerate(readables[:4]):
        features, slots = cached.load(readable)
        assert (features.shape, slots, float(features[0, 0])) == ((number + 1, 2), number + 1, number)
    with pytest.raises(CacheMiss, match=r"long\.wav"):
        cached.load(readables[4])
