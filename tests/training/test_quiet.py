"""Runs print no known-harmless warnings of libraries."""

from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import yaml
from processes import train

from kebyt5_xm.training.recipes import overlay


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    return folder


def printed(folder: Path, *words: str, ranks: int = 1, code: int = 0) -> str:
    log = folder / "log"
    assert train([*words], log, ranks)[0] == code, log.read_text()
    text = log.read_text()
    noise = [
        line for line in text.splitlines() if "site-packages" in line or "Tip:" in line or "Warning" in line
    ]
    assert noise == []
    return text


def write(folder: Path, name: str, **trainer: Any) -> str:
    """A recipe with a frozen encoder, on one rank or two."""
    frozen = tiny_media.image_overlay(folder, "tiny_media.PatchesWithStatistics", frozen=True)
    return tiny_run.write_recipe(folder, name, overlay(tiny_run.recipe(folder, name, **trainer), frozen))


@pytest.mark.slow
def test_a_run_is_trained_continued_and_validated_without_a_warning(folder: Path) -> None:
    path = write(folder, "one")
    printed(folder, "fit", "-c", path)
    assert "continues at step 7" in printed(
        folder, "fit", "-c", path, "--ckpt_path", "last", "--trainer.max_steps", "9"
    )
    recipe = folder / "one" / "config.yaml"
    assert yaml.safe_load(recipe.read_text())["ckpt_path"] is None
    trust = ("--trust", "tiny_media")  # the recipe of a run may be third-party
    lines = printed(folder, "validate", "-c", str(recipe), "--ckpt_path", "best", *trust).splitlines()
    names = [line.split()[0] for line in lines if line.startswith("val/")]
    parts = ["", "/captions", "/text/en", "/text/ko"]
    assert names == [f"val/{figure}{part}" for figure in ("bits_per_byte", "loss") for part in parts]


@pytest.mark.slow
def test_two_ranks_are_as_quiet(folder: Path) -> None:
    printed(folder, "fit", "-c", write(folder, "two", strategy="ddp", devices=2), ranks=2)


@pytest.mark.slow
def test_a_run_that_holds_nothing_out_trains_and_cannot_be_validated(folder: Path) -> None:
    recipe = tiny_run.recipe(folder, "whole")
    recipe["data"]["sources"]["text"]["init_args"]["validation"] = 0
    path = tiny_run.write_recipe(folder, "whole", recipe)
    printed(folder, "fit", "-c", path)
    log = printed(folder, "validate", "-c", path, "--ckpt_path", "last", code=2)
    assert "error: found no held-out examples to validate on" in log
