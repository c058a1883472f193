"""Continuing from an older checkpoint moves later steps to RUN/abandoned, completely even after a kill."""

import json
import signal
from pathlib import Path

import pytest
import tiny_run
import torch
from killing import die_before
from processes import CONTEXT

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.branches import refuse_abandoned, set_aside
from kebyt5_xm.model.runs.checkpoint_io import DurableCheckpointIO
from kebyt5_xm.model.runs.checkpoint_reading import read_checkpoint
from kebyt5_xm.model.runs.digest import is_damaged
from kebyt5_xm.model.runs.run import Run, backbone_tensors

OLD, BACK = 11, 5
"""The last step of the run, and the step of the checkpoint that it continues from."""


def write_run(run: Path) -> Path:
    """Write a run that ended at step `OLD`, with checkpoints of steps 5, 7 and 11, and a best of 7."""
    for name, step in (("step=5", 5), ("step=7", 7), ("step=11", 11), ("best", 7)):
        content = {"state_dict": {"model.backbone.w": torch.full((13,), float(step))}, "global_step": step}
        DurableCheckpointIO().save_checkpoint(content, run / "checkpoints" / f"{name}.ckpt")
    (run / "config.yaml").write_text("seed_everything: 3\n")
    rows = [f"{step},train/loss,{step}.5" for step in range(1, OLD + 1)]
    (run / "metrics.csv").write_text("\n".join(["step,metric,value", *rows, "11,cut"]) + "\n")
    (run / "skipped.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in (3, 5, 6)))
    for place, suffix in (("samples", "md"), ("predictions", "jsonl")):
        (run / place).mkdir()
        for step in (5, 7):
            (run / place / f"step={step}.{suffix}").touch()
    (run / "results.json").write_text(json.dumps({"steps": OLD}))
    (run / "evaluation.json").write_text(json.dumps({"step": 5}))
    (run / "backbone").mkdir()
    (run / "backbone" / "config.json").write_text("{}")
    return run


def steps(path: Path) -> list[int]:
    return [int(line.partition(",")[0]) for line in path.read_text().splitlines()[1:]]


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_later_steps_become_a_run_that_commands_can_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    set_aside(run, BACK)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"step=5.ckpt", "step=5.ckpt.digest"}
    assert Run(run).last.name == "step=5.ckpt"
    assert steps(run / "metrics.csv") == [1, 2, 3, 4, 5]
    assert [json.loads(line)["step"] for line in (run / "skipped.jsonl").read_text().splitlines()] == [3, 5]
    left = {"config.yaml", "metrics.csv", "skipped.jsonl", "evaluation.json", "backbone/config.json"}
    left |= {"samples/step=5.md", "predictions/step=5.jsonl"}
    assert {name for name in files(run) if not name.startswith(("abandoned", "checkpoints"))} == left
    aside = Run(run / "abandoned" / "1")
    assert aside.last.name == "step=11.ckpt"
    assert not is_damaged(aside.last)
    assert read_checkpoint(aside.best)["global_step"] == 7
    assert steps(aside.path / "metrics.csv")[:OLD] == list(range(1, OLD + 1))
    assert aside.results() == {"steps": OLD}
    assert {"samples/step=7.md", "predictions/step=7.jsonl", "backbone/config.json"} <= files(aside.path)
    before = files(run)
    set_aside(run, BACK)
    assert files(run) == before, "once is enough"
    with pytest.raises(
        UserError, match=r"was set aside when .* continue it in its own folder, with --run_dir"
    ):
        refuse_abandoned(aside.last, run)
    refuse_abandoned(aside.last, aside.path)


def test_a_second_branch_gets_another_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    set_aside(run, 7)
    set_aside(run, BACK)
    last = [Run(run / "abandoned" / number).last.name for number in ("1", "2")]
    assert last == ["step=11.ckpt", "step=7.ckpt"]


def test_rows_without_a_checkpoint_go_to_logs(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "results.json").unlink()
    with (run / "metrics.csv").open("a") as file:
        file.write("13,train/loss,1.5\n")
    set_aside(run, OLD)
    assert steps(run / "metrics.csv")[-1] == OLD
    assert files(run / "abandoned") == {"logs/metrics.csv"}
    assert (run / "abandoned/logs/metrics.csv").read_text() == "13,train/loss,1.5\n"


def move_and_die(run: str, call: int) -> None:
    """Call `set_aside`; the process is killed right before the `call`-th change of a folder."""
    die_before(call, "rename", "replace", "unlink", "mkdir")
    set_aside(Path(run), BACK)


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    call, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        call += 1
        run = write_run(tmp_path / f"run{call}")
        process = CONTEXT.Process(target=move_and_die, args=(str(run), call))
        process.start()
        process.join(60)
        code = process.exitcode
        assert not is_damaged(Run(run).last)
        if Run(run).last.name == "step=11.ckpt":  # not moved yet, so its files are unchanged
            assert OLD in steps_of(run)
            assert (run / "results.json").exists()
        held = {
            read_checkpoint(path)["global_step"]
            for path in [*run.glob("checkpoints/*.ckpt"), *run.glob("abandoned/*/checkpoints/*.ckpt")]
        }
        assert held == {5, 7, 11}
        set_aside(run, BACK)
        assert Run(run).last.name == "step=5.ckpt"
        assert max(steps(run / "metrics.csv")) == BACK
        aside = [
            int(line.partition(",")[0])
            for path in run.glob("abandoned/*/metrics.csv")
            for line in lines(path)
        ]
        assert set(aside) >= set(range(BACK + 1, OLD + 1))
    assert code == 0
    assert call > 10, "kills came in between"


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line[:1].isdigit()]


def steps_of(run: Path) -> set[int]:
    return {int(line.partition(",")[0]) for line in lines(run / "metrics.csv")}


@pytest.mark.slow
def test_the_newest_branch_is_read(tmp_path: Path) -> None:
    """Continue from step 5 of 7 at another learning rate: without a kill, and killed after step 6 and resumed."""
    tiny_run.write_stores(tmp_path)
    recipes = {}
    for name in ("whole", "killed"):
        first = {**tiny_run.resumable_recipe(tmp_path, name), "checkpoint_every": 5}
        assert tiny_run.fit_to_log(tmp_path, first) == [0]
        recipes[name] = {**tiny_run.resumable_recipe(tmp_path, name), "checkpoint_every": 1}
        recipes[name]["model"]["optimizer"]["init_args"]["lr"] = 0.0007
    ended = backbone_tensors(Run(tmp_path / "whole").last)
    older = {name: str(tmp_path / name / "checkpoints" / "step=5.ckpt") for name in recipes}
    assert tiny_run.fit_to_log(tmp_path, recipes["whole"], "--ckpt_path", older["whole"]) == [0]
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 25}}
    recipes["killed"]["trainer"]["callbacks"] = [kill]
    assert tiny_run.fit_to_log(tmp_path, recipes["killed"], "--ckpt_path", older["killed"]) == [
        -signal.SIGKILL
    ]
    run = Run(tmp_path / "killed")
    assert run.last.name == "step=6.ckpt"
    assert Run(run.path / "abandoned" / "1").last.name == "step=7.ckpt"
    recipes["killed"]["trainer"]["callbacks"] = []
    assert tiny_run.fit_to_log(tmp_path, recipes["killed"], "--ckpt_path", "last") == [0]
    found = [backbone_tensors(Run(tmp_path / name).last) for name in ("whole", "killed")]
    assert all(found[0][key].equal(found[1][key]) for key in ended)
    assert not found[0]["shared.weight"].equal(ended["shared.weight"])
    assert tiny_run.train_losses(run.path) == tiny_run.train_losses(tmp_path / "whole")
    aside = backbone_tensors(Run(tmp_path / "whole" / "abandoned" / "1").last)
    assert all(aside[key].equal(ended[key]) for key in ended)
