"""Runs every command, overlay and class of README in order, on tiny corpora and shapes.

`make demo` and `make test` are what continuous integration runs.
"""

import contextlib
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pages import ROOT, WORDS, blocks, execute, write_checkpoint, write_media
from server_process import Server

from benchmarks import readme

ADDRESS = "http://127.0.0.1:8000"
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
    with contextlib.ExitStack() as servers:
        for number, command in enumerate(commands()):
            match shlex.split(command):
                case ["kebyt5-xm", "serve", model, *options]:
                    server = servers.enter_context(Server(str(folder / model), *options))
                case _:
                    execute(command, folder / f"{number}.log")
        for kind, text in blocks(README):
            if kind == "python" and not re.match(r"# \S+\n", text):
                exec(text.replace(ADDRESS, server.url), {})
        status, _, page = server.ask("/")
        assert (status, "<title>" in page) == (200, True)
        server.stop()
    last = max(Path("runs/pretrain-small/checkpoints").glob("step=*.ckpt"))
    assert last.name == "step=3.ckpt", "a finished run that is given another step must train it"
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


@pytest.mark.parametrize("name", readme.PAGES)
def test_results_equal_the_measured_ones(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page.splitlines() == readme.updated(name, page).splitlines(), (
        "run `python -m benchmarks.readme --write`"
    )


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
