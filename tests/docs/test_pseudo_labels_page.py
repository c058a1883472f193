"""Runs the commands of docs/pseudo_labels.md in order, on a run that has learnt its one caption."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pages
import pytest
import tiny_teachers

from kebyt5_xm.data.text.store_writer import StoreWriter

PAGE = (pages.ROOT / "docs" / "pseudo_labels.md").read_text(encoding="utf-8")
README = (pages.ROOT / "README.md").read_text(encoding="utf-8")
LEARNING: dict[str, Any] = {
    "model": {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}},
    "data": {"sources": {"captions": {"init_args": {"weight": 50.0}}}},
    "checkpoint_every": 120,
    "trainer": {"max_steps": 120, "val_check_interval": 120},
}
"""Overrides for a run that answers right: the caption of all photos is the same."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the page's data, its run and its teacher."""
    draw = np.random.default_rng(7)
    (tmp_path / "configs").symlink_to(pages.ROOT / "configs")
    pages.write_media(tmp_path, draw)
    rows = (tmp_path / "photos" / "heldout.jsonl").read_text("utf-8").splitlines(keepends=True)
    unlabelled = "".join(json.dumps({"image": json.loads(row)["image"]}) + "\n" for row in rows)
    (tmp_path / "photos" / "unlabelled.jsonl").write_text(unlabelled)
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "all.jsonl").write_text('{"question": "1 + 1"}\n{"question": "2"}\n')
    tiny_teachers.save(tmp_path / "teachers" / "large", *tiny_teachers.causal_model())
    for language, words in pages.WORDS.items():
        with StoreWriter(tmp_path / "stores" / language, language) as store:
            for _ in range(211):
                store.write(" ".join(draw.choice(words.split(), 13)).encode())
    for page in (README, PAGE):
        for kind, text in pages.blocks(page):
            if kind == "yaml" and (name := re.match(r"# (\S+)\n", text)):
                (tmp_path / name[1]).write_text(text, encoding="utf-8")
    pages.write_checkpoint(tmp_path / "runs" / "pretrain-small")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (folder / "learning.yaml").write_text(json.dumps(LEARNING))  # JSON is YAML
    start = "python train.py fit -c configs/pretrain/small.yaml -c image.yaml --run_dir runs/photos"
    tiny = {
        **pages.TINY,
        "checkpoint_every": 120,
        "trainer": {**pages.TINY["trainer"], **LEARNING["trainer"]},
    }
    with monkeypatch.context() as patch:
        patch.setattr(pages, "TINY", tiny)
        weights = "--model.backbone.weights runs/pretrain-small"
        pages.execute(f"{start} {weights} -c learning.yaml", folder / "start.log")
    commands = [line for kind, text in pages.blocks(PAGE) if kind == "bash" for line in text.splitlines()]
    for number, command in enumerate(commands):
        pages.execute(command, folder / f"{number}.log")
    taught = [json.loads(line) for line in Path("questions/taught.jsonl").read_text("utf-8").splitlines()]
    assert [row["question"] for row in taught] == ["1 + 1", "2"]
    more = [json.loads(line) for line in Path("photos/more.jsonl").read_text("utf-8").splitlines()]
    assert {row["answer"] for row in more} == {"세 마리 새"}
    printed = capsys.readouterr().out
    assert "precision to expect: 1.000" in printed
    assert Path("runs/more/checkpoints/step=2.ckpt").exists()
