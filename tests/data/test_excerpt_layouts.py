"""NeMo's manifests and Kaldi's data directories: rows with their times; commands are refused, never run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_media import SAMPLE_RATE, write_manifest

from encoders.stems import LogMelEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.layouts import Kaldi, Layout, NeMo
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Kaldi's scripts run in, with a recording of 7 s and one of 2 s."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 7 * SAMPLE_RATE)
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "long one.wav", noise, SAMPLE_RATE)
    soundfile.write(tmp_path / "wav" / "two.wav", noise[: 2 * SAMPLE_RATE], SAMPLE_RATE)
    return tmp_path


def write_kaldi(folder: Path, **files: str) -> Path:
    path = folder / "data" / "train"
    path.mkdir(parents=True, exist_ok=True)
    given = {"wav.scp": "r1 wav/long one.wav\nr2\twav/two.wav \n", **files}
    for name, content in given.items():
        (path / name.replace("wav_scp", "wav.scp")).write_text(content, encoding="utf-8")
    return path


def read(path: Path, layout: Layout) -> list[dict[str, Any]]:
    rows = open_rows(path, layout)
    return [dict(rows.row(number)) for number in range(len(rows))]


def connected(path: Path, layout: Layout, **settings: Any) -> Manifest:
    prompt = "{audio:speech}" if isinstance(layout, Kaldi) else "{audio_filepath:speech}"
    source = Manifest(str(path), prompt, "{text}", layout, **settings)
    encoder = LogMelEncoder(out_dim=13, sample_rate=SAMPLE_RATE, num_mels=11)
    source.connect({"speech": interface(encoder, Linear, 29)})
    return source


def skips(source: Manifest) -> list[str]:
    examples = source.load(Selection.rows(0, 0, source.parts()[0].num_rows, held_out=False))
    return ["" if example.skipped is None else example.skipped.cause for example in examples]


SEGMENTS = "u1 r1 0.00 1.50\nu2  r1\t1.5 3.1\nu3 r1 5 -1\nu4 r2 0.3 2.07\n"
TEXT = "u1 나라 말이\nu2 중국과　달라\nu4 \n"


def test_a_data_directory_of_kaldi(folder: Path) -> None:
    path = write_kaldi(folder, segments=SEGMENTS, text=TEXT, utt2spk="u1 s1\nu2 s1\nu3 s1\n")
    long, two = "wav/long one.wav", "wav/two.wav"
    assert [tuple(row.values()) for row in read(path, Kaldi())] == [
        ("u1", long, 0.0, 1.5, "나라 말이", "s1"),
        ("u2", long, 1.5, 1.6, "중국과　달라", "s1"),
        ("u3", long, 5.0, None, None, "s1"),
        ("u4", two, 0.3, 1.77, None, None),
    ]
    rows = open_rows(path, Kaldi())
    assert rows.place(2) == (str(path / "segments"), 3)
    source = connected(path, Kaldi())
    assert [bool(cause) for cause in skips(source)] == [False, False, True, True]
    prompts = source.prompts(held_out=False)
    assert prompts is not None
    found = [open_audio(medium.readable())[0] for medium in prompts.media("speech")]
    whole = open_audio(folder / "wav" / "long one.wav")[0]
    times = [(0, 1.5), (1.5, 3.1), (5, 7), (0.3, 2)]
    for waveform, (begin, end) in zip(found, times, strict=True):
        np.testing.assert_array_equal(waveform, whole[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)])


def test_without_segments_a_recording_is_an_utterance(folder: Path) -> None:
    path = write_kaldi(folder, text="r1 하나\nr2 둘\n")
    assert [(row["id"], row["offset"], row["duration"], row["text"]) for row in read(path, Kaldi())] == [
        ("r1", None, None, "하나"),
        ("r2", None, None, "둘"),
    ]
    assert skips(connected(path, Kaldi())) == ["", ""]
    assert open_rows(path, Kaldi()).place(1) == (str(path / "wav.scp"), 2)


def test_paths_are_relative_to_the_folder_of_the_scripts_or_to_another(folder: Path) -> None:
    path = write_kaldi(folder, wav_scp="r1 two.wav\n", text="r1 둘\n")
    assert "no such file" in skips(connected(path, Kaldi()))[0]
    assert skips(connected(path, Kaldi(root="../wav"))) == [""]


@pytest.mark.parametrize(
    "entry",
    [
        "touch {mark} |",
        "sox a.wav -t wav - |",
        "| touch {mark}",
        "touch {mark}|  ",
        "-",
        "raw.ark:12345",
        "raw.ark:5[0:7]",
        "ark:raw.ark",
        "scp,p:x.scp",
        "",
    ],
)
def test_what_is_no_path_is_refused_and_never_run(folder: Path, entry: str) -> None:
    mark = folder / "mark"
    path = write_kaldi(folder, wav_scp=f"r1 wav/two.wav\nr2 {entry.format(mark=mark)}\n", text="r1 a\nr2 b\n")
    with pytest.raises(UserError, match=r"line 2 of .*wav\.scp (is|has) .*expected .*path") as caught:
        connected(path, Kaldi())
    assert "\n" not in str(caught.value)
    if "|" in entry:
        assert "commands are never run" in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"segments": "u1 r1 0\n"},
            r"line 1 of .*segments has 'r1 0' behind its id, expected a recording and its st",
        ),
        ({"segments": "u1 r1 abc 1\n"}, r"'r1 abc 1'.*in seconds"),
        ({"segments": "u1 r1 0 1e999\n"}, r"'r1 0 1e999'.*in seconds"),
        ({"segments": "u1 r1 0 1 1\n"}, r"has the channel '1', expected none"),
        ({"segments": "u1 r1 0 1 1 1\n"}, r"expected a recording and its start"),
        (
            {"segments": "u1 r11 0 1\n"},
            r"has the recording 'r11', expected one of .*wav\.scp; did you mean 'r1'",
        ),
        ({"segments": "u1 r1 0 1\n\nu1 r1 1 2\n"}, r"line 3 of .*segments has the id 'u1' of line 1"),
        (
            {"segments": SEGMENTS, "text": "u1 a\nu9 b\n"},
            r"line 2 of .*text has the utterance 'u9', expected one of",
        ),
        ({"wav_scp": "r1 wav/two.wav\nr1 wav/two.wav\n"}, r"line 2 of .*wav\.scp has the id 'r1' of line 1"),
        ({"wav_scp": "\n"}, r"found no rows in"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused_by_line(
    folder: Path, files: dict[str, str], words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(write_kaldi(folder, **files), Kaldi())
    assert "\n" not in str(caught.value)


def test_empty_and_backward_segments_are_skipped_like_any_row(folder: Path) -> None:
    segments = "u1 r1 1 1\nu2 r1 2 1\nu3 r1 0 7.4\nu4 r1 0 7.6\nu5 r1 -1 2\n"
    text = "".join(f"u{n} a\n" for n in range(1, 6))
    found = skips(connected(write_kaldi(folder, segments=segments, text=text), Kaldi()))
    assert found[0] == "column 'duration' is a length of 0 seconds, expected more"
    assert "column 'duration' is '-1.0', expected seconds" in found[1]
    assert found[2] == ""
    assert "found a recording of 7.000 s, expected one that holds 0 to 7.6 s" in found[3]
    assert "column 'offset' is '-1.0'" in found[4]


def test_a_changed_file_of_the_directory_is_noticed(folder: Path) -> None:
    path = write_kaldi(folder, segments=SEGMENTS, text=TEXT)
    first = open_rows(path, Kaldi()).fingerprint
    write_kaldi(folder, segments=SEGMENTS.replace("3.1", "3.2"), text=TEXT)
    assert open_rows(path, Kaldi()).fingerprint != first
    assert read(path, Kaldi())[1]["duration"] == 1.7


def test_no_directory_of_kaldi(folder: Path) -> None:
    with pytest.raises(UserError, match=r"found no wav\.scp in .*expected the files of Kaldi"):
        read(folder / "wav", Kaldi())
    with pytest.raises(UserError, match=r"found nothing at .*expected Kaldi files"):
        read(folder / "none", Kaldi())


def test_a_manifest_of_nemo(folder: Path) -> None:
    path = folder / "wav" / "train.json"
    rows = [
        {"audio_filepath": "long one.wav", "duration": 1.5, "offset": 2, "text": "하나", "lang": "ko"},
        {"audio_filepath": "long one.wav", "duration": 7, "text": "모두", "extra": {"snr": 3}},
        {"audio_filepath": "two.wav", "duration": None, "offset": "0.5", "text": "뒤"},
        {"audio_filepath": "two.wav", "duration": float("nan"), "text": "a"},
        {"audio_filepath": "two.wav", "duration": 1.0},
    ]
    write_manifest(path, rows)
    found = read(path, NeMo())
    assert [str(row["offset"]) for row in found] == ["2.0", "None", "0.5", "None", "None"]
    assert [row["lang"] for row in found] == ["ko", None, None, None, None]
    assert found[1]["extra.snr"] == 3
    source = connected(path, NeMo())
    causes = skips(source)
    assert causes[:3] == ["", "", ""]
    assert causes[3] == "column 'duration' is 'nan', expected seconds as a number from 0 to 10,000,000"
    assert causes[4] == "column 'text' is null"
    prompts = source.prompts(held_out=False)
    assert prompts is not None
    media = list(prompts.media("speech"))[:3]
    assert [len(open_audio(medium.readable())[0]) / SAMPLE_RATE for medium in media] == [1.5, 7.0, 1.5]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "is a JSON list, expected an object with 'audio_filepath'"),
        ('{"audio": "a.wav"}', "is an object with the keys audio, expected an object with 'audio_filepath'"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_line_that_is_not_of_nemo_is_refused(folder: Path, line: str, words: str) -> None:
    path = folder / "train.json"
    path.write_text(f'{{"audio_filepath": "wav/two.wav", "text": "a"}}\n\n{line}\n')
    with pytest.raises(UserError, match=f"line 3 of .*{words}") as caught:
        read(path, NeMo())
    assert "\n" not in str(caught.value)


def test_keys_of_the_source_replace_those_of_the_layout_and_each_file_has_its_own(folder: Path) -> None:
    path = folder / "train.json"
    row = {"audio_filepath": "wav/two.wav", "offset": 1.5, "duration": 0.5, "at": 0.5, "text": "a"}
    path.write_text(json.dumps(row) + "\n")
    kaldi = write_kaldi(folder, segments=SEGMENTS.replace("r1", "r2"), text=TEXT)

    def seconds(source: Manifest, held_out: bool) -> float:
        prompts = source.prompts(held_out)
        assert prompts is not None
        return len(open_audio(next(prompts.media("speech")).readable())[0]) / SAMPLE_RATE

    assert seconds(connected(path, NeMo()), False) == 0.5
    assert seconds(connected(path, NeMo(), offset="at"), False) == 1.5
    (folder / "plain.jsonl").write_text('{"audio": "wav/two.wav", "text": "a"}\n')
    source = Manifest(
        str(folder / "plain.jsonl"),
        "{audio:speech}",
        "{text}",
        validation=str(kaldi),
        validation_format=Kaldi(),
    )
    assert (seconds(source, False), seconds(source, True)) == (2.0, 1.5)
