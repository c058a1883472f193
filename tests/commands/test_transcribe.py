"""`kebyt5-xm transcribe`: printed, into a folder, and what it refuses."""

import json
from pathlib import Path

import pytest
import soundfile
from tiny_model import SAMPLE_RATE, recording, tiny_model

from kebyt5_xm.commands import cli
from kebyt5_xm.errors import UserError

PROMPT = ["--prompt", "{audio:speech} ko:", "--window-seconds", "0.6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transcribe")
    tiny_model().save_pretrained(folder / "model")
    for name, seed in (("a", 1), ("b", 2)):
        soundfile.write(folder / f"{name}.wav", recording(seed, 9001)[0], SAMPLE_RATE)
    (folder / "bad.wav").write_bytes(b"RIFF")
    return folder


def transcribe(folder: Path, *args: str) -> None:
    cli.run("transcribe", [str(folder / "model"), *args])


def test_it_prints_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transcribe(folder, str(folder / "a.wav"), *PROMPT)
    expected = tiny_model().transcribe(folder / "a.wav", "{audio} ko:", window_seconds=0.6)
    assert capsys.readouterr().out == expected.text + "\n"


@pytest.mark.parametrize(
    ("name", "begin"), [("json", "{"), ("srt", "1\n00:00:00,0"), ("vtt", "WEBVTT\n\n00:00:00.0")]
)
def test_formats(folder: Path, capsys: pytest.CaptureFixture[str], name: str, begin: str) -> None:
    transcribe(folder, str(folder / "a.wav"), *PROMPT, "--format", name)
    found = capsys.readouterr().out
    assert found.startswith(begin)
    if name == "json":
        assert json.loads(found)["file"] == str(folder / "a.wav")
        assert json.loads(found)["seconds"] == pytest.approx(9001 / SAMPLE_RATE, abs=1e-3)


def test_a_folder_gets_what_is_missing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others are made although one recording is bad, and a second call makes none again."""
    out = ["--format", "srt", "--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"1 of 3 recordings have no transcript; the first: .*bad\.wav"):
        transcribe(folder, str(folder / "*.wav"), *PROMPT, *out)
    assert "2 transcripts" in capsys.readouterr().err
    written = tmp_path / "out" / "b.srt"
    assert written.read_text(encoding="utf-8").startswith("1\n00:00:0")
    assert not (tmp_path / "out" / "bad.srt").exists()
    written.write_text("kept", encoding="utf-8")
    (tmp_path / "out" / "a.srt").unlink()
    transcribe(folder, str(folder / "a.wav"), str(folder / "b.wav"), *PROMPT, *out)
    assert "2 transcripts" in (error := capsys.readouterr().err)
    assert "1 of them new" in error
    assert written.read_text(encoding="utf-8") == "kept"
    with pytest.raises(UserError, match="of another prompt, expected the same command; choose another --out"):
        transcribe(folder, str(folder / "a.wav"), "--window-seconds", "0.6", *out)


def test_refusals(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    out = ["--out", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"whose transcripts would both be .*a\.txt"):
        transcribe(folder, str(folder / "a.wav"), str(tmp_path / "a.wav"), *PROMPT, *out)
    with pytest.raises(UserError, match=r"found no file '.*gone\.wav'"):
        transcribe(folder, str(folder / "gone.wav"))
    with pytest.raises(UserError, match="cannot make the folder --out"):
        transcribe(folder, str(folder / "a.wav"), "--out", str(folder / "a.wav" / "out"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("by hand", encoding="utf-8")
    with pytest.raises(UserError, match="that this command did not write"):
        transcribe(folder, str(folder / "a.wav"), *PROMPT, *out)
    with pytest.raises(UserError, match="expected a CPU; use --dtype bf16"):
        transcribe(folder, str(folder / "a.wav"), "--dtype", "int8", "--device", "cuda")


def test_another_recording_of_one_name_is_not_done(folder: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    transcribe(folder, str(folder / "a.wav"), *PROMPT, *out)
    (tmp_path / "a.wav").write_bytes((folder / "b.wav").read_bytes())
    with pytest.raises(
        UserError, match=r"a\.txt', the transcript of '.*a\.wav', expected that of '.*a\.wav'"
    ):
        transcribe(folder, str(tmp_path / "a.wav"), *PROMPT, *out)
    transcribe(folder, str(folder / "b.wav"), *PROMPT, *out)
    transcribe(folder, str(folder / "a.wav"), *PROMPT, *out)  # its place is kept by commands without it
    (tmp_path / "out" / "a.txt").unlink()
    transcribe(folder, str(tmp_path / "a.wav"), *PROMPT, *out)
    assert (tmp_path / "out" / "a.txt").read_text() == (tmp_path / "out" / "b.txt").read_text()


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_of_several_recordings_need_a_folder(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"found 2 recordings, expected one: .*; give --out"):
        transcribe(folder, str(folder / "a.wav"), str(folder / "b.wav"), *PROMPT, "--format", name)


def test_int8_and_beams(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    transcribe(folder, str(folder / "a.wav"), *PROMPT, "--dtype", "int8", "--num-beams", "2")
    assert capsys.readouterr().out.strip()
