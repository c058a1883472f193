"""Runs the recipes and commands of docs/finetune.md in order, on a few rows and tiny shapes."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
from tiny_encoders import TORCHAUDIO
from tiny_media import write_manifest

from kebyt5_xm.data.text.store_writer import StoreWriter
from kebyt5_xm.model.runs.run import Run

PAGE = (pages.ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
ADD = "configs/add/"
SMALLER = {
    f"{ADD}image_siglip.yaml": {"model": {"modalities": {"image": {"encoder": {"init_args": pages.NO_HUB}}}}},
    f"{ADD}speech_xlsr.yaml": {
        "model": {
            "modalities": {
                "speech": {
                    "encoder": {
                        "init_args": {
                            "pretrained": False,
                            "shape": {
                                key: [list(layer) for layer in value] if isinstance(value, list) else value
                                for key, value in TORCHAUDIO.items()
                            },
                        }
                    }
                }
            }
        }
    },
    "configs/finetune/denoising.yaml": {"data": {"sources": {"text": {"init_args": {"inputs_length": 61}}}}},
}
"""Overrides for recipes that need a hub or long texts."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the page's data, and a tiny model under the hub id."""
    draw = np.random.default_rng(7)
    (tmp_path / "configs").symlink_to(pages.ROOT / "configs")
    pages.write_media(tmp_path, draw)
    (tmp_path / "photos").rename(tmp_path / "signs")
    (tmp_path / "reviews").mkdir()
    for part in ("train", "heldout"):
        rows = [
            json.loads(line)
            for line in (tmp_path / "signs" / f"{part}.jsonl").read_text("utf-8").splitlines()
        ]
        signs = [{"image": row["image"], "text": "출입 금지"} for row in rows]
        write_manifest(tmp_path / "signs" / f"{part}.jsonl", signs)
        reviews = [f"{n}\t{text}\t{n % 2}" for n, text in enumerate(["지루하다", "참 좋았다"] * 7)]
        text = "\n".join(["id\tdocument\tlabel", *reviews]) + "\n"
        (tmp_path / "reviews" / f"{part}.tsv").write_text(text, encoding="utf-8")
    for language, words in pages.WORDS.items():
        with StoreWriter(tmp_path / "stores" / language, language) as store:
            for _ in range(211):
                store.write(" ".join(draw.choice(words.split(), 13)).encode())
    for kind, text in pages.blocks(PAGE):
        if kind == "yaml" and (name := re.match(r"# (\S+)\n", text)):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
    pages.write_checkpoint(tmp_path / "google" / "byt5-small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tiny() -> dict[str, Any]:
    """Return overrides for a small run; the backbone's shape comes from its weights."""
    model = {key: value for key, value in pages.TINY["model"].items() if key != "backbone"}
    data = {key: value for key, value in pages.TINY["data"].items() if key != "sources"}
    return {**pages.TINY, "model": model, "data": data}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(pages, "REPLACEMENTS", SMALLER)
    monkeypatch.setattr(pages, "TINY", tiny())
    commands = [
        line
        for kind, text in pages.blocks(PAGE)
        if kind == "bash"
        for line in text.replace("\\\n", " ").splitlines()
    ]
    for number, command in enumerate(commands):
        pages.execute(command, folder / f"{number}.log")
    assert {path.parent.name for path in (folder / "runs").glob("*/report.html")} == {
        *("sentiment", "signs", "transcripts"),
    }
    evaluated = json.loads(Path("runs/transcripts/evaluation.json").read_text("utf-8"))["sources"][
        "transcripts"
    ]
    assert {curve["kind"] for curve in evaluated["robustness"]["curves"]} == {"audio"}
    assert set(evaluated["modality_use"]["modalities"]) == {"speech"}
    assert "text/ko" in Run("runs/transcripts").results()["forgetting"]
    assert Path("comparison.html").read_text("utf-8").count("runs/signs")
    printed = [
        line.split("  ")[1]
        for line in capsys.readouterr().out.splitlines()
        if re.match(r"[01]\.\d{4}  ", line)
    ]
    assert sorted(printed) == ["긍정", "부정"]
