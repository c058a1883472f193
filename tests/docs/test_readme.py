"""Runs every command, overlay and class of README in order, on tiny corpora and shapes.

`make demo` and `make test` are what continuous integration runs.
"""

import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT, WORDS, blocks, execute, write_checkpoint, write_media

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    return [line for kind, text in blocks(README) if kind == "bash" for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a working directory with the files that README's commands need: corpora, media, recipes."""
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


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning"
)  # Lightning's calls
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
    """Return the rows of README's table of results, with the figures of the benchmarks' files."""
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
        "| private memory of one data worker, loading them | "
        f"{loader['budgeted']['private_mb_of_a_worker']:.1f} MB | |",
    ]


def test_results_equal_the_measured_ones() -> None:
    missing = [row for row in measured_rows() if row not in README]
    assert not missing, "README's table of results lacks:\n" + "\n".join(missing)


def test_padding_shares_equal_the_measured_ones() -> None:
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
