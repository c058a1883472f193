"""`kebyt5-xm lint` finds everything that is wrong, once, with its line; `kebyt5-xm preview` shows what is drawn."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_media
import tiny_run
import yaml
from PIL import Image

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.lint.report import histogram
from kebyt5_xm.commands.preview.pictures import shown
from kebyt5_xm.data.text.store_writer import ShardWriter, finish_store
from kebyt5_xm.errors import UserError
from kebyt5_xm.training.recipes import overlay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
NUM_BAD = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A manifest of 13 good images with five bad rows behind them, blank lines between, and speech and text."""
    tiny_media.write_media(tmp_path)
    tiny_run.write_stores(tmp_path)
    (tmp_path / "short.png").write_bytes((tmp_path / "3.png").read_bytes()[:401])
    rows = [
        {"picture": name, "caption": "짧은 글"} for name in ("short.png", "none.png", "../out.png", "1.wav")
    ]
    with (tmp_path / "images.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n\n{broken\n" + "".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def lint(*args: object) -> int:
    try:
        cli.run("lint", [str(arg) for arg in args])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def problems(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


EXPECTED = [
    (16, "images.jsonl", "not JSON: "),
    (17, "short.png", "truncated"),
    (18, "none.png", "there is no such file"),
    (19, "../out.png", "it leaves the manifest's folder"),
    (20, "1.wav", "found no readable image"),
]


def test_every_problem_is_printed_and_written_with_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "problems.jsonl"
    manifest = folder / "images.jsonl"
    args = (manifest, "--prompt", "{picture:image} 설명", "--target", "{caption}", "--out", out)
    assert lint(*args) == 1
    found = problems(out)
    assert [(row["line"], Path(row["path"]).name) for row in found] == [
        (line, Path(name).name) for line, name, _ in EXPECTED
    ]
    printed = capsys.readouterr().out
    for line, _, cause in EXPECTED:
        assert re.search(rf"^{re.escape(str(manifest))}:{line}: .*{re.escape(cause)}", printed, re.MULTILINE)
    assert f"18 rows, {NUM_BAD} with a problem (27.78%)" in printed
    assert "target ids: least 9, median 9, 95% 10" in printed
    assert lint(*args, "--show", 2) == 1
    assert f"... and {NUM_BAD - 2} problems more in {out}" in capsys.readouterr().out
    assert problems(out) == found


def test_excerpts_of_manifests_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "excerpts.jsonl"
    rows = [{"a": "0.wav", "s": 0, "n": 0.1}, {"a": "0.wav", "s": 2, "n": 0.1}, {"a": "0.wav", "s": "x"}]
    tiny_media.write_manifest(path, rows)
    prompt = (path, "--prompt", "{a:audio}", "--target", "t")
    assert lint(*prompt) == 0
    assert lint(*prompt, "--offset", "s", "--duration", "n") == 1
    printed = capsys.readouterr().out
    assert f"{path}:2: 0.wav: found a recording of 0.125 s, expected one that holds 2 to 2.1 s" in printed
    assert f"{path}:3: column 's' is 'x', expected seconds" in printed


@pytest.mark.slow
def test_processes_find_what_one_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [{"text": f"문장 {n}"} for n in range(1009)]
    lines = [json.dumps(row) for row in good]
    lines[300], lines[997] = "{", "[]"
    path = folder / "many.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    pages = []
    for workers in (1, 2):
        assert lint(path, "--prompt", "{text}", "--workers", workers) == 1
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1]
    assert f"{path}:301: not JSON" in pages[0]
    assert f"{path}:998: found a JSON list" in pages[0]


def test_documents_of_a_store_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = ShardWriter(tmp_path, "shard", b"\n")
    writer.write(["가나다".encode(), b"good", b"bad \xe3\x81", b"nul \0", b"x" * 67])
    finish_store(tmp_path, "ko", b"\n", [writer.close()], {}, {})
    assert lint(tmp_path) == 1
    printed = capsys.readouterr().out
    assert f"{tmp_path}:3: invalid UTF-8: 0xe3 at byte 4" in printed
    assert f"{tmp_path}:4: NUL byte: at byte 4" in printed
    assert "5 rows, 2 with a problem (40.00%)" in printed
    assert "document bytes: least 4, median 9, 95% 67, 99% 67, most 67, mean 26.7" in printed


def recipe(folder: Path) -> str:
    contents = tiny_run.recipe(folder, "run")
    for added in (tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)):
        contents = overlay(contents, added)
    return tiny_run.write_recipe(folder, "recipe", contents)


def test_a_recipe_is_read_as_training_would(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its slots are counted, its held-out manifest and its stores are read."""
    assert lint("-c", recipe(folder)) == 1
    printed = capsys.readouterr().out
    assert printed.count(f"captions: {folder / 'images.jsonl'}: 18 rows, {NUM_BAD} with a problem") == 1
    assert f"speech: {folder / 'speech.jsonl'}: 11 rows, nothing wrong" in printed
    assert "image slots: least 4, median 4" in printed
    assert "speech slots: least 5," in printed
    assert re.search(r"^text: .*: \d+ rows, nothing wrong", printed, re.MULTILINE)


def test_names_cannot_break_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["\x1b[31m.png", "a\nb.png", "\ud800.png"]
    tiny_media.write_manifest(tmp_path / "odd.jsonl", [])
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps({"p": name}) + "\n" for name in names))
    out = tmp_path / "problems.jsonl"
    for _ in range(2):  # over its own file it may write
        assert lint(tmp_path / "odd.jsonl", "--prompt", "{p:image}", "--out", out) == 1
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'odd.jsonl'}:1: \\x1b[31m.png: there is no such file" in printed
    assert f"{tmp_path / 'odd.jsonl'}:2: a\\nb.png: there is no such file" in printed
    assert "odd.jsonl:3: column 'p' holds half a character" in printed
    assert [json.loads(line)["line"] for line in out.read_text(encoding="utf-8").splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "found nothing to read"),
        (["images.jsonl", "--prompt", "{picture:picture}"], "found the modality 'picture' in --prompt"),
        (["images.jsonl", "--prompt", "{pictures:image}"], "found the column 'pictures'"),
        (["images.jsonl", "--show", "-1"], "expected numbers from 0 up"),
        (["images.jsonl", "--out", "none/x.jsonl"], "cannot write none/x.jsonl"),
        (["absent.jsonl"], "found no manifest at absent.jsonl"),
        (["images.jsonl", "--out", "images.jsonl"], "found --out images.jsonl, which is not a file of"),
    ],
)
def test_wrong_use_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], words: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=re.escape(words)):
        cli.run("lint", args)


def test_histogram() -> None:
    lines = list(histogram("bytes", np.array([9, 2, 3]), np.array([80, 1, 19])))
    assert lines[0] == "  bytes: least 2, median 9, 95% 9, 99% 9, most 9, mean 7.8"
    assert [line.split("█")[0].split() for line in lines[1:]] == [
        ["2", "to", "3", "20"],
        ["4", "to", "7", "0"],
        ["8", "to", "15", "80"],
    ]
    assert [line.count("█") for line in lines[1:]] == [10, 0, 40]


def test_the_preview_shows_what_is_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "page.html"
    cli.run("preview", ["-c", recipe(folder), "-n", "101", "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    num_skipped = int(re.search(r"101 examples, (\d+) of them skipped", capsys.readouterr().out)[1])  # pyright: ignore
    assert page.count('<article class="skipped">') == num_skipped > 0
    assert page.count("<article") == 101
    assert [int(n) for n in re.findall(r"<h2>(\d+) · ", page)] == list(range(101))
    assert "http" not in page.replace("http-equiv", ""), "it needs no network"
    assert "default-src &#39;none&#39;" in page, "nor may it use one"
    assert re.search(r'<mark class="slot">image · 4 slots</mark> 설명: <mark class="end">end</mark>', page)
    assert re.search(r'<mark class="sentinel">0</mark>', page)
    assert re.search(r"<dt>target, \d+ ids</dt><dd>number \d+<mark", page)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="prepared: 3 x 16 x 16', page)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (16, 16)
    assert page.count("<audio controls") == page.count("recording: ") > 0


def test_the_preview_of_one_source(folder: Path) -> None:
    out = folder / "page.html"
    args = ["-c", recipe(folder), "-n", "3", "--first", "20", "--source", "speech", "--out", str(out)]
    cli.run("preview", args)
    heads = re.findall(r"<h2>(\d+) · ([a-z]+)", out.read_text(encoding="utf-8"))
    assert [name for _, name in heads] == ["speech"] * 3
    assert int(heads[0][0]) >= 20
    with pytest.raises(
        UserError, match=r"found no source 'speach', expected one of .*; did you mean 'speech'"
    ):
        cli.run("preview", ["-c", recipe(folder), "--source", "speach"])


def test_the_preview_of_more_than_a_run_has(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = tiny_run.recipe(folder, "run")
    rows = [{"n": n} for n in range(5)]
    tiny_media.write_manifest(folder / "five.jsonl", rows)
    init_args = {"path": str(folder / "five.jsonl"), "prompt": "  {n} = ", "target": " {n}", "epochs": 1}
    contents["data"]["sources"] = {"five": {"class_path": "kebyt5_xm.data.Manifest", "init_args": init_args}}
    path = tiny_run.write_recipe(folder, "five", contents)
    cli.run("preview", ["-c", path, "-n", "7", "--out", str(folder / "five.html")])
    page = (folder / "five.html").read_text(encoding="utf-8")
    assert page.count("<article") == 5
    assert len(re.findall(r"<dd>  \d = <mark", page)) == len(re.findall(r"<dd> \d<mark", page)) == 5, (
        "blanks too"
    )
    with pytest.raises(UserError, match="found no example among 0 draws from example 5 on"):
        cli.run("preview", ["-c", path, "--first", "5", "--out", str(folder / "none.html")])


@pytest.mark.parametrize("weights", ["google/byt5-small", "no/such/folder"])
def test_data_alone_is_read_without_the_backbone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """Neither asks the hub, nor for a folder of weights that is not there yet."""

    def asked(name: str) -> None:
        raise AssertionError(f"asked for {name}")

    monkeypatch.setattr("kebyt5_xm.model.backbone.open_pretrained", asked)
    contents = yaml.safe_load(Path(recipe(folder)).read_text(encoding="utf-8"))
    contents["model"]["backbone"] = {"weights": weights}
    adapter = {
        "class_path": "kebyt5_xm.adapters.PerceiverResampler",
        "init_args": {"queries": 3, "heads": 12},
    }
    contents["model"]["modalities"]["image"]["adapter"] = adapter
    path = tiny_run.write_recipe(folder, "hub", contents)
    out = folder / "hub.html"
    cli.run("preview", ["-c", path, "-n", "5", "--source", "captions", "--out", str(out)])
    assert "3 slots" in out.read_text(encoding="utf-8")
    assert lint("-c", path) == 1


def test_a_waveform_is_heard_as_it_was_prepared() -> None:
    from encoders.stems import LogMelEncoder
    from encoders.torchaudio import WaveformPreprocessor

    prepared = WaveformPreprocessor(8000, normalize=False, stack=()).prepare(
        (np.zeros(1601, np.float32), 16000)
    )
    assert prepared.shape == (801,)
    shown_waveform = shown("audio", 8000, prepared, (np.zeros(1601, np.float32), 16000))
    assert "801 samples at 8000 Hz" in shown_waveform[0].caption
    frames = LogMelEncoder(num_mels=17).preprocessor()
    assert frames.waveform_rate is None  # its sample_rate is not that of what it prepares
