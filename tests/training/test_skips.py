"""Skipped examples: listed one by one, counted over ranks; too many of them end a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
from tiny_run import fit_and_read_log as fit

from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks.skips import Skips
from kebyt5_xm.training.recipes import overlay


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirteen images; one has a sound header, but its pixels are cut off."""
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    path = tmp_path / "7.png"
    path.write_bytes(path.read_bytes()[:200])
    return tmp_path


def recipe(folder: Path, run: str, **data: Any) -> dict[str, Any]:
    contents = overlay(tiny_run.recipe(folder, run), tiny_media.image_overlay(folder, out_dim=8))
    contents["data"]["sources"]["captions"]["init_args"]["weight"] = 3.0
    contents["data"] |= data
    return contents


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("budget", [None, {"global_length": 4 * 211, "micro_length": 211}])
def test_every_skipped_example_is_listed_and_counted_on_one_rank_or_two(folder: Path, budget: Any) -> None:
    size = {} if budget is None else {"global_batch_size": None, "budget": budget}
    found = []
    for run, more in (("one", {}), ("two", {"strategy": "ddp", "devices": 2})):
        contents = recipe(folder, run, max_skipped=0.1, **size)
        contents["trainer"] |= more
        codes, log = fit(folder, contents, ranks=len(more) or 1)
        assert set(codes) == {0}, log
        assert "7.png" not in log, "a row in the file, not a line on the screen"
        here = rows(folder / run)
        assert {(row["source"], row["line"], Path(row["path"]).name) for row in here} == {
            ("captions", 8, "7.png")
        }
        assert "truncated" in here[0]["cause"]
        counted = Run(folder / run).results()["skipped"]["captions"]
        assert counted["skipped"] == len(here)
        shares = [r["value"] for r in Run(folder / run).metrics() if r["metric"] == "skipped/captions"]
        assert shares[-1] == pytest.approx(len(here) / counted["drawn"])
        found.append((sorted(row["step"] for row in here), counted))
    assert found[0] == found[1]


@pytest.mark.slow
def test_skipped_held_out_examples_are_listed_once(folder: Path) -> None:
    (folder / "held.jsonl").write_bytes((folder / "images.jsonl").read_bytes())
    contents = recipe(folder, "held")
    contents["data"]["sources"]["captions"]["init_args"] |= {
        "validation": str(folder / "held.jsonl"),
        "max_validation_examples": 13,
        "weight": 0.001,
    }
    contents["trainer"]["log_every_n_steps"] = 0  # nothing but the last step is logged
    codes, log = fit(folder, contents)
    assert codes == [0], log
    (row,) = [row for row in rows(folder / "held") if Path(row["path"]).name == "7.png"]
    assert (row["step"], row["source"], row["line"]) == (3, "captions", 8)


@pytest.mark.slow
def test_too_many_end_the_run_on_every_rank(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (1, 2, 3, 4, 5, 6):
        path = folder / f"{n}.png"
        path.write_bytes(path.read_bytes()[:200])
    contents = recipe(folder, "many", max_skipped=0.003, global_batch_size=16)
    contents["trainer"] |= {"strategy": "ddp", "devices": 2}
    codes, log = fit(folder, contents, ranks=2)
    assert codes == [2, 2], log
    assert "examples of 'captions' could not be made, more than data.max_skipped 0.003 allows" in log
    assert len(rows(folder / "many")) > 3


@pytest.mark.slow
def test_files_that_headers_show_to_be_missing_are_refused_before_the_first_step(folder: Path) -> None:
    (folder / "2.png").unlink()
    codes, log = fit(folder, recipe(folder, "refused"))
    assert codes == [2]
    assert "data.sources.captions: 1 of 13 rows of" in log
    assert "give no example, more than data.max_skipped 0.01 allows" in log
    assert not (folder / "refused" / "config.yaml").exists()
    codes, log = fit(folder, recipe(folder, "allowed", max_skipped=0.1))
    assert codes == [0], log
    assert {Path(row["path"]).name for row in rows(folder / "allowed")} == {"2.png", "7.png"}


def test_counts_are_exact_beyond_the_precision_of_float32(tmp_path: Path) -> None:
    """A long run draws more than 2^24 examples of a source."""
    drawn = (1 << 24) + 1
    data: Any = SimpleNamespace(training=SimpleNamespace(names=["captions"]), max_skipped=0.5)
    skips = Skips(data)
    skips.drawn[0], skips.skipped[0] = drawn, 7
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda tensor, reduce_op: tensor)
    trainer: Any = SimpleNamespace(strategy=strategy, loggers=[], default_root_dir=tmp_path)
    skips._judge(trainer, 1)
    assert skips.totals == {"captions": (7, drawn)}
