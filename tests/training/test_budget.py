"""Training on global batches by length, padded and packed: on one rank or two, without or with a kill."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import fit, losses, train_losses

from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.recipes import overlay

PADDED = {"global_length": 4 * 211, "micro_length": 211}
PACKED = {"global_length": 4 * 2 * 103, "micro_length": 2 * 103, "packed_length": 103}
BUDGETS = {"padded": PADDED, "packed": PACKED}


def recipe(folder: Path, run: str, budget: dict[str, int], **trainer: Any) -> dict[str, Any]:
    contents = tiny_run.recipe(folder, run, **trainer)
    for added in (tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)):
        contents = overlay(contents, added)
    contents["data"] |= {"global_batch_size": None, "budget": budget, "num_workers": 2}
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    for name, budget in BUDGETS.items():
        assert fit(folder, name, recipe(folder, name, budget)) == [0], (folder / f"{name}.log").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", BUDGETS)
def test_two_ranks_equal_one(folder: Path, name: str) -> None:
    contents = recipe(folder, f"{name}-ddp", BUDGETS[name], strategy="ddp", devices=2)
    assert fit(folder, f"{name}-ddp", contents, ranks=2) == [0, 0], (folder / f"{name}-ddp.log").read_text()
    found, expected = (losses(Run(folder / run)) for run in (f"{name}-ddp", name))
    assert {"0 train/loss", "6 train/loss/speech"} & expected.keys()
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUDGETS)
def test_killed_and_continued_is_bit_identical(folder: Path, name: str) -> None:
    """The kill falls inside the fifth step's accumulation of four; the last checkpoint is the fourth step's."""
    run = f"{name}-killed"
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 18}}
    assert fit(folder, run, recipe(folder, run, BUDGETS[name], callbacks=[kill])) == [-signal.SIGKILL]
    contents = recipe(folder, run, BUDGETS[name])
    assert fit(folder, run, contents, "--ckpt_path", "last") == [0], (folder / f"{run}.log").read_text()
    assert train_losses(folder / run) == train_losses(folder / name)


@pytest.mark.slow
def test_another_budget_is_refused_on_resume(folder: Path) -> None:
    contents = recipe(folder, "packed", {**PACKED, "global_length": 2 * 2 * 103}, max_steps=11)
    assert fit(folder, "refused", contents, "--ckpt_path", "last") == [2]
    message = (folder / "refused.log").read_text()
    assert (
        "global_batch: 824 positions in micro-batches of 206, packed into rows of 103 -> 412 positions"
        in message
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"global_batch_size": 8}, "found data.global_batch_size 8 and data.budget"),
        (
            {"budget": {**PADDED, "micro_length": 200}},
            "global_length is 844, expected a multiple of micro_length 200",
        ),
        (
            {"budget": {"global_length": 100, "micro_length": 100, "packed_length": 30}},
            "a multiple of packed_length 30",
        ),
    ],
)
def test_impossible_budgets_are_refused(folder: Path, change: dict[str, Any], words: str) -> None:
    contents = recipe(folder, "refused", PADDED)
    contents["data"] |= change
    assert fit(folder, "refused", contents) == [2]
    assert words in " ".join((folder / "refused.log").read_text().split())


@pytest.mark.slow
def test_sources_that_end_before_the_run_are_refused_with_the_last_step(folder: Path) -> None:
    contents = recipe(folder, "ends", PADDED)
    del contents["data"]["sources"]["text"]
    for source in contents["data"]["sources"].values():
        source["init_args"]["epochs"] = 1
    assert fit(folder, "ends", contents) == [2]
    message = (folder / "ends.log").read_text()
    assert "trainer.max_steps is 7, but the sources end after" in message


@pytest.mark.slow
def test_padding_is_logged_and_packing_has_less_of_it(folder: Path) -> None:
    shares = {}
    for name in BUDGETS:
        rows = [row for row in Run(folder / name).metrics() if row["metric"] == "padding/text"]
        assert len(rows) == tiny_run.STEPS
        shares[name] = sum(row["value"] for row in rows) / len(rows)
    assert 0 <= shares["packed"] < shares["padded"] < 1
    assert any(row["metric"] == "padding/speech" for row in Run(folder / "padded").metrics())
