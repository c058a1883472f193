"""`kebyt5-xm tune` on a tiny run: its page and its overlay; what it refuses; Ctrl-C."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import yaml

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.tune import search, trials
from kebyt5_xm.training.from_recipes import build_with_config
from kebyt5_xm.training.library_messages import silence
from kebyt5_xm.training.recipes import overlay

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's calls of jsonargparse
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]
GROUPS = {"model": {"groups": {"slow": {"pattern": "backbone.shared.*", "lr": 0.0006}}}}


@pytest.fixture
def recipe(tmp_path: Path) -> list[str]:
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    contents = overlay(tiny_run.recipe(tmp_path, "run"), tiny_media.image_overlay(tmp_path))
    return [tiny_run.write_recipe(tmp_path, "recipe", overlay(contents, GROUPS))]


def tune(capsys: pytest.CaptureFixture[str], paths: list[str], *words: str) -> tuple[int, str]:
    code = 0
    try:
        cli.main(["tune", *(word for path in paths for word in ("-c", path)), *words])
    except SystemExit as error:
        code = int(error.code or 0)
    captured = capsys.readouterr()
    return code, captured.err if code == 2 else captured.out


def test_page_and_overlay(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every short run starts anew: the same rate gives the same loss. The run's own folder is not made."""
    monkeypatch.setattr(search, "RUN_STEPS", (3, 3))
    monkeypatch.setattr(search, "RANGE_STEPS", (5, 11))
    code, out = tune(capsys, recipe, "--minutes", "3")
    assert code == 0, out
    assert not (tmp_path / "run").exists()
    page, written = tmp_path / "run-tune" / "tune.html", tmp_path / "run-tune" / "rate.yaml"
    assert "Short runs: held-out loss" in page.read_text(encoding="utf-8")
    assert "range test: 11 steps" in out
    model = yaml.safe_load(written.read_text(encoding="utf-8"))["model"]
    rate = model["optimizer"]["init_args"]["lr"]
    assert f"the rate is {rate:g}" in out
    assert model["groups"]["slow"]["lr"] == pytest.approx(rate / 5, rel=0.05)
    task, _, _ = build_with_config([*recipe, str(written)], False)
    optimizer = task.optimization.build(task.builder.build(), 7)[0]
    rates = {group["name"]: group["initial_lr"] for group in optimizer.param_groups}
    assert rates == {"default": pytest.approx(rate), "slow": pytest.approx(rate / 5, rel=0.05)}
    assert tune(capsys, recipe, "--minutes", "3")[0] == 0  # writes over its own files


def test_trials_start_anew(recipe: list[str]) -> None:
    silence()
    task, data, parsed = build_with_config(recipe, False)
    data.prepare(task.interfaces())
    data.connect(task.interfaces())
    found = trials.Trials(task, data, parsed["trainer"], lambda: False)
    assert (found.rate, sorted(found.rates)) == (0.003, [0.0006, 0.003])
    first = found.train(1.0, 3)
    assert found.train(7.0, 3) != first
    assert found.train(1.0, 3) == first


@pytest.mark.parametrize(
    ("changed", "words", "message"),
    [
        ({}, ("--minutes", "0"), "found --minutes 0, expected more than 0"),
        ({}, ("--minutes", "nan"), "found --minutes nan"),
        ({"model": {"optimizer": {"init_args": {"lr": 0.0}}}}, (), "lr is 0"),
        ({}, ("--minutes", "0.001"), "give at least"),
        ({"monitor": 1, "data": {"micro_batch_size": 3}}, (), "not a multiple of data.micro_batch_size 3"),
    ],
)
def test_wrong_input_is_refused_in_a_line(
    recipe: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, Any],
    words: tuple[str, ...],
    message: str,
) -> None:
    paths = [*recipe, tiny_run.write_recipe(tmp_path, "changed", changed)]
    code, err = tune(capsys, paths, *words)
    assert code == 2, err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "run-tune").exists()


def test_the_folder_of_a_run_is_refused(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").write_text("")
    code, err = tune(capsys, recipe, "--out", str(tmp_path / "other"))
    assert (code, "holds a run" in err) == (2, True)


@pytest.mark.parametrize(("after", "expected"), [("range", 130), ("run", 0)])
def test_ctrl_c_keeps_what_is_found(
    recipe: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    after: str,
    expected: int,
) -> None:
    monkeypatch.setattr(search, "RUN_STEPS", (3, 3))
    monkeypatch.setattr(search, "RANGE_STEPS", (10, 11))
    record = (trials.RangeTest if after == "range" else trials.Outcome).record

    def press(self: Any, trainer: Any, loss: float) -> None:
        record(self, trainer, loss)
        if trainer.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trials.RangeTest if after == "range" else trials.Outcome, "record", press)
    before = signal.getsignal(signal.SIGINT)
    code, out = tune(capsys, recipe, "--minutes", "3")
    assert code == expected, out
    assert (tmp_path / "run-tune" / "rate.yaml").exists() == (expected == 0)
    assert signal.getsignal(signal.SIGINT) == before
