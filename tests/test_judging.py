"""Metrics of written answers in validation, on one rank and on two, and the best checkpoint by them."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from processes import train
from test_strategies import STRATEGIES

from kebyt5_xm.recipes import overlay
from kebyt5_xm.run import Run, checkpoint_step

ROWS = 7
LAST_VALIDATION = 6  # of seven steps, every third
LABELS = {str(n): word for n, word in enumerate(("영", "일", "이"))}


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    """The tiny text recipe, with captions to write and numbers to name."""
    contents = overlay(tiny_run.recipe(folder, run, **trainer), tiny_media.image_overlay(folder))
    captions = contents["data"]["sources"]["captions"]["init_args"]
    captions |= {"max_validation_examples": ROWS, "metrics": [{"class_path": "kebyt5_xm.metrics.ExactMatch"}]}
    contents["data"]["sources"]["names"] = {
        "class_path": "kebyt5_xm.data.Manifest",
        "init_args": {
            "path": str(folder / "names.jsonl"),
            "validation": str(folder / "names.jsonl"),
            "prompt": "{number} = ",
            "target": "{label}",
            "labels": LABELS,
            "metrics": [{"class_path": "kebyt5_xm.metrics.Accuracy"}],
            "max_validation_examples": ROWS,
        },
    }
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judging")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    rows = [{"number": 7 * n, "label": n % len(LABELS)} for n in range(11)]
    tiny_media.write_manifest(folder / "names.jsonl", rows)
    assert fit(folder, "single", recipe(folder, "single")) == [0], (folder / "single.log").read_text()[-3000:]
    return folder


def fit(folder: Path, name: str, contents: dict[str, Any], *args: str, ranks: int = 1) -> list[int]:
    path = tiny_run.write_recipe(folder, name, contents)
    return train(["fit", "-c", path, *args], folder / f"{name}.log", ranks)


def judged(run: Run) -> dict[tuple[int, str], float]:
    names = ("val/accuracy/names", "val/exact_match/captions")
    return {(row["step"], row["metric"]): row["value"] for row in run.metrics() if row["metric"] in names}


def predictions(run: Run) -> list[dict[str, Any]]:
    path = run.path / "predictions" / f"step={LAST_VALIDATION}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_every_held_out_row_is_answered_once(folder: Path) -> None:
    rows = predictions(Run(folder / "single"))
    assert [(row["source"], row["row"]) for row in rows] == [
        (source, n) for source in ("captions", "names") for n in range(ROWS)
    ]
    names = [row for row in rows if row["source"] == "names"]
    assert {row["prediction"] for row in names} <= set(LABELS.values())
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in names)
    assert [row["references"] for row in names] == [[LABELS[str(n % len(LABELS))]] for n in range(ROWS)]
    right = sum(row["prediction"] in row["references"] for row in names)
    assert judged(Run(folder / "single"))[LAST_VALIDATION, "val/accuracy/names"] == pytest.approx(
        right / ROWS
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_judge_as_one(folder: Path, name: str) -> None:
    contents = recipe(folder, name, strategy=STRATEGIES[name], devices=2)
    assert fit(folder, name, contents, ranks=2) == [0, 0], (folder / f"{name}.log").read_text()[-3000:]
    assert judged(Run(folder / name)) == judged(Run(folder / "single"))
    found, expected = predictions(Run(folder / name)), predictions(Run(folder / "single"))
    for one, other in zip(found, expected, strict=True):
        if one["probabilities"]:
            assert one.pop("probabilities") == pytest.approx(other.pop("probabilities"), rel=1e-3)
    assert found == expected


@pytest.mark.slow
def test_the_best_checkpoint_is_that_of_the_highest_accuracy(folder: Path) -> None:
    contents = recipe(folder, "best") | {"monitor": "val/accuracy/names"}
    contents["model"]["optimizer"]["init_args"]["lr"] = 0.03
    contents["trainer"] |= {"val_check_interval": 1, "max_steps": 13}
    assert fit(folder, "best", contents) == [0], (folder / "best.log").read_text()[-3000:]
    run = Run(folder / "best")
    values = {step: value for (step, name), value in judged(run).items() if name == "val/accuracy/names"}
    assert len(set(values.values())) > 1, "the run must have a best"
    assert values[checkpoint_step(run.best)] == max(values.values())  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_monitor_that_nothing_logs_is_refused(folder: Path) -> None:
    assert fit(folder, "unknown", recipe(folder, "unknown"), "--monitor", "val/acuracy/names") == [2]
    log = (folder / "unknown.log").read_text()
    assert "did you mean 'val/accuracy/names'" in log
    assert "Traceback" not in log
