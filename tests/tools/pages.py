"""Runs the commands of a documentation page, on tiny media and models."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import train

from kebyt5_xm.commands import cli

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
WORDS = {
    "ko": "나라 말이 중국과 달라 문자와 서로 통하지 아니하므로 어린 백성이",
    "en": "the quick brown fox jumps over a lazy dog while it rains",
    "zh": "天地 玄黄 宇宙 洪荒 日月 盈昃 辰宿 列张 寒来 暑往",
    "ja": "いろは にほへと ちりぬるを わかよ たれそ つねならむ",
}
TINY: dict[str, Any] = {
    "checkpoint_every": 1,
    "model": {
        "backbone": {"size": None, "shape": SHAPE},
        "schedule": {"class_path": "kebyt5_xm.schedules.Cosine", "init_args": {"warmup_steps": 1}},
    },
    "data": {
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "num_workers": 0,
        "sources": {"text": {"init_args": {"inputs_length": 61}}},
    },
    "trainer": {
        "accelerator": "cpu",
        "precision": "32-true",
        "max_steps": 2,
        "val_check_interval": 1,
        "enable_progress_bar": False,
    },
}
NO_HUB = {"model_name": "test_vit", "pretrained": False}
REPLACEMENTS = {"photos.yaml": {"model": {"modalities": {"photo": {"encoder": {"init_args": NO_HUB}}}}}}
"""Recipes that replace hub models in overlays of README."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks as (language, content); the tree has no language."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def write_media(folder: Path, draw: np.random.Generator) -> None:
    import soundfile
    from PIL import Image

    rows: dict[str, list[dict[str, str]]] = {"photos": [], "clips": [], "pairs": []}
    for path in ("photos/images", "clips/audio", "pairs"):
        (folder / path).mkdir(parents=True)
    for number in range(1, 8):
        image, audio = f"images/{number:04}.png", f"audio/{number:04}.wav"
        pixels = draw.integers(0, 256, (41, 37, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / image)
        soundfile.write(folder / "clips" / audio, draw.standard_normal(7919 + number) / 9, 16000)
        rows["photos"].append({"image": image, "caption": "세 마리 새"})
        rows["clips"].append({"audio": audio, "transcript": "여섯"})
        rows["pairs"].append({"en": "good morning", "ko": "좋은 아침"})
    for name, manifest in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in manifest)
        for part in ("train", "heldout"):
            (folder / name / f"{part}.jsonl").write_text(text, encoding="utf-8")


def write_checkpoint(folder: Path) -> None:
    """Write a tiny model into a folder with the name of a hub id, which is looked up first."""
    from safetensors.torch import save_file

    from kebyt5_xm.model.backbone import Backbone
    from kebyt5_xm.model.t5 import saved_config, saved_state

    model = Backbone(shape=SHAPE).build()
    folder.mkdir(parents=True)
    save_file(saved_state(model), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(saved_config(model.config)))


def tiny(recipe: dict[str, Any]) -> str:
    Path("tiny.yaml").write_text(yaml.safe_dump(recipe))
    return "tiny.yaml"


def fit(words: list[str], ranks: int, log: Path) -> None:
    recipe = TINY
    if "--ckpt_path" in words:
        recipe = {**TINY, "trainer": {**TINY["trainer"], "max_steps": 3}}
    smaller = ["-c", tiny(recipe)] if words[0] == "fit" else []
    for name, recipe in REPLACEMENTS.items():
        if name in words:
            Path(f"tiny-{Path(name).name}").write_text(yaml.safe_dump(recipe))
            smaller += ["-c", f"tiny-{Path(name).name}"]
    devices = ["--trainer.devices", str(ranks)] if words[0] == "fit" else []
    assert train([*words, *smaller, *devices], log, ranks) == [0] * ranks, log.read_text()[-4000:]


def execute(command: str, log: Path) -> None:
    match shlex.split(command, comments=True):
        case ["make", "demo" | "test"]:
            pass
        case ["kebyt5-xm", "doctor", *words]:
            cli.run("doctor", [*words, "-c", tiny(TINY)])
        case ["kebyt5-xm", name, *words]:
            cli.run(name, words)
        case ["python", "train.py", *words]:
            fit(words, 1, log)
        case ["torchrun", "--nproc-per-node", ranks, "train.py", *words]:
            fit(words, int(ranks), log)
        case ["python", "-m", "pytest", file]:
            outcome = pytest.main(["-q", "-p", "no:cacheprovider", "--rootdir", ".", file])
            assert outcome == pytest.ExitCode.OK
        case _:
            pytest.fail(f"no test knows how to run: {command}")
