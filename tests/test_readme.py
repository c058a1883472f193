"""README is run: every command, overlay and class in it, in order, on corpora and shapes made tiny here.

`make demo` and `make test` are what continuous integration runs.
"""

import json
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import train

from kebyt5_xm.commands import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
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
INSTEAD = {"photos.yaml": {"model": {"modalities": {"photo": {"encoder": {"init_args": NO_HUB}}}}}}
"""What is laid over an overlay of README that names a model on the hub."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks as (language, content); the tree has no language."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for kind, text in blocks(README) if kind == "bash" for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with what README's commands find in the reader's: corpora, media, the recipes."""
    draw = np.random.default_rng(3)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "corpora").mkdir()
    for language, words in WORDS.items():
        lines = [" ".join(draw.choice(words.split(), 13)) for _ in range(211)]
        (tmp_path / "corpora" / f"{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    write_media(tmp_path, draw)
    for kind, text in blocks(README):
        if kind in ("yaml", "python") and (name := re.match(r"# (\S+)\n", text)):
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_encoder", "test_my_encoder"):
        sys.modules.pop(name, None)


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
    """Put a tiny model where a hub id is looked for first: into a folder of that name."""
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
    for name, recipe in INSTEAD.items():
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


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"
)  # Lightning's calls
@pytest.mark.timeout(1800)  # ten runs of train.py
def test_every_command_runs(folder: Path) -> None:
    write_checkpoint(folder / "google" / "byt5-small")
    for number, command in enumerate(commands()):
        execute(command, folder / f"{number}.log")
    last = max(Path("runs/pretrain-small/checkpoints").glob("step=*.ckpt"))
    assert last.name == "step=3.ckpt", "a finished run that is given another step must train it"
    for kind, text in blocks(README):
        if kind == "python" and not re.match(r"# \S+\n", text):
            exec(text, {})
    trained = {path.parent.name for path in (folder / "runs").glob("*/results.json")}
    assert trained == {
        *("pretrain-small", "continue-small", "ddp", "image", "image-speech", "photos", "my-encoder"),
        "translate",
    }


def test_an_encoder_takes_less_than_thirty_lines() -> None:
    named = {text.splitlines()[0]: text for kind, text in blocks(README) if kind == "python"}
    parts = [named["# my_encoder.py"], named["# test_my_encoder.py"]]
    lines = [line for part in parts for line in part.splitlines() if line.strip() and line[0] != "#"]
    assert len(lines) < 30


def test_the_korean_readme_has_the_same_code() -> None:
    korean = (ROOT / "README.ko.md").read_text(encoding="utf-8")
    assert blocks(korean) == blocks(README)
    assert table(korean) == table(README)


def table(text: str) -> list[list[str]]:
    """Return the numbers of each row of the last table of a page."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    last = len(rows) - rows[::-1].index("|---|---|---|")
    return [re.findall(r"\d[\d.,]*", row) for row in rows[last:]]


def figures(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())["figures"]


def measured_rows() -> list[str]:
    """Return README's table of results as the benchmarks' files have it."""
    encoding, denoising, store = figures("bytes")["documents"], figures("denoising"), figures("store")
    memory = {kind: store["memory"][kind]["4_gb"]["resident_growth_mb"] for kind in ("store", "memmap")}
    lines, loader = figures("manifest")["json_lines"], figures("loader")
    trained = {kind: loader[kind]["trained_useful_bytes_per_s"] for kind in ("padded", "budgeted")}
    return [
        f"| text to byte ids | {encoding['encode_mb_per_s']:,.0f} MB/s | "
        f"{encoding['ByT5Tokenizer_mb_per_s']:.2f} MB/s, `ByT5Tokenizer` "
        f"({encoding['ratio_encode_to_ByT5Tokenizer']:.0f}x) |",
        "| span denoising, inputs of 1024, batch 64, one core | "
        f"{denoising['byte_boundaries']['examples_per_s_at_batch_64']:,.0f} examples/s | "
        f"{denoising['collator_examples_per_s']:,.0f} examples/s, a per-example collator "
        f"({denoising['ratio_byte_batch_64_to_collator']:.1f}x) |",
        f"| memory resident after random reads of a 4 GB store | {memory['store']:.1f} MB | "
        f"{memory['memmap']:,.0f} MB, a memory map |",
        "| 4 GB store to denoised tensors, in the loading process | "
        f"{store['tensors']['4_gb']['examples_per_s_in_process']:,.0f} examples/s | "
        f"{store['tensors']['4_gb']['examples_per_s_from_1_worker']:,.0f} examples/s from one worker |",
        f"| opening an indexed manifest of 10,000,000 rows | {lines['opening_ms']:.1f} ms, "
        f"{lines['private_growth_mb_of_opening']:.1f} MB | {lines['indexing_s']:.1f} s, indexing it once |",
        "| useful bytes trained, texts of 30 to 1,500 bytes, tiny T5: batches by length | "
        f"{trained['budgeted']:,.0f} bytes/s | {trained['padded']:,.0f} bytes/s, padded in the plan's order "
        f"({loader['ratio_budgeted_to_padded']:.1f}x) |",
        "| memory of its own that a worker holds, loading them | "
        f"{loader['budgeted']['private_mb_of_a_worker']:.1f} MB | |",
    ]


def test_results_are_those_that_were_measured() -> None:
    missing = [row for row in measured_rows() if row not in README]
    assert not missing, "README's table of results lacks:\n" + "\n".join(missing)


def test_what_padding_costs_is_what_was_measured() -> None:
    loader = figures("loader")
    words = " ".join((ROOT / "docs" / "data.md").read_text(encoding="utf-8").split())
    padded, budgeted, packed = (loader[kind]["padding_share"] for kind in ("padded", "budgeted", "packed"))
    assert (
        f"{padded:.0%} of the positions hold nothing in the plan's order, {budgeted:.0%} by length" in words
    )
    assert f"by length and {packed:.0%} packed" in words
    ratios = [loader[f"ratio_{kind}_to_padded"] for kind in ("budgeted", "packed")]
    assert "trains {:.1f}x those of the plan's order, packed {:.1f}x".format(*ratios) in words


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "README.ko.md",
        "CONTRIBUTING.md",
        *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
    ],
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert not [link for link in links if not ((ROOT / page).parent / link).exists()]


def test_the_classes_it_names_exist() -> None:
    named = set(
        re.findall(r"`((?:encoders|kebyt5_xm)\.[\w.]+)`|class_path: ((?:encoders|kebyt5_xm)[\w.]+)", README)
    )
    for first, second in named:
        pkgutil.resolve_name(first or second)
