"""Training on excerpts of long files is training on files that were cut."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny_media
import tiny_run
import torch
from processes import train

from kebyt5_xm.commands import cli
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.training.recipes import overlay

RATE = tiny_media.SAMPLE_RATE
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Excerpts of a FLAC and an MP3, some of which overlap, and the same stretches as files."""
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    draw = np.random.default_rng(1)
    noise = 0.3 * draw.uniform(-1, 1, 30 * RATE)
    rows, cut = [], []
    for name in ("long.flac", "long.mp3"):
        soundfile.write(tmp_path / name, noise, RATE)
        whole = open_audio(tmp_path / name)[0]
        for number in range(9):
            begin, count = int(draw.integers(0, 29 * RATE)), int(draw.integers(900, 2900))
            file = f"{name}.{number}.wav"
            soundfile.write(tmp_path / file, whole[begin : begin + count], RATE, "FLOAT")
            text = {"transcript": f"{number}"}
            rows.append({"recording": name, "at": begin / RATE, "lasts": count / RATE, **text})
            cut.append({"recording": file, **text})
    tiny_media.write_manifest(tmp_path / "rows.jsonl", rows)
    tiny_media.write_manifest(tmp_path / "cut.jsonl", cut)
    return tmp_path


def recipe(folder: Path, run: str, manifest: str, **settings: Any) -> str:
    contents = overlay(tiny_run.recipe(folder, run), tiny_media.speech_overlay(folder))
    source = contents["data"]["sources"]["speech"]["init_args"]
    path = str(folder / manifest)
    source |= {"path": path, "validation": path, "weight": 3.0, "limits": {"max_seconds": 1.0}, **settings}
    source["metrics"] = [{"class_path": "kebyt5_xm.metrics.ExactMatch"}]
    contents["data"]["num_workers"] = 1
    return tiny_run.write_recipe(folder, run, contents)


@pytest.mark.slow
def test_excerpts_train_like_cut_files_and_reports_show_them(folder: Path) -> None:
    weights = []
    for run, manifest, times in (
        ("whole", "cut.jsonl", {}),
        ("excerpts", "rows.jsonl", {"offset": "at", "duration": "lasts"}),
    ):
        path = recipe(folder, run, manifest, **times)
        assert train(["fit", "-c", path], folder / "log") == [0], (folder / "log").read_text()[-3000:]
        last = folder / run / "checkpoints" / f"step={tiny_run.STEPS}.ckpt"
        weights.append(torch.load(last, weights_only=True)["state_dict"])
        assert not (folder / run / "skipped.jsonl").exists()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name

    cli.run("report", [str(folder / "excerpts"), "--probed", "3"])
    lines = (folder / "excerpts" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    for row, line in zip(rows, lines, strict=True):
        (medium,) = json.loads(line)["prompt"]
        assert [medium[key] for key in ("reference", "offset", "duration")] == [
            row[key] for key in ("recording", "at", "lasts")
        ]
    pages = [(folder / "excerpts" / "report.html").read_text(encoding="utf-8")]
    cli.run("report", [str(folder / "excerpts"), "--no-evaluate"])
    pages.append((folder / "excerpts" / "report.html").read_text(encoding="utf-8"))
    for page in pages:
        assert f"long.flac @ {rows[0]['at']:.10g} s + {rows[0]['lasts']:.10g} s" in page
        assert page.count("data:audio/") >= 9
