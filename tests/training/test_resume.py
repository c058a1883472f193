"""A run that is killed and continued gives bit-identical results to one that is never stopped."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from processes import train
from tiny_run import fit_to_log as fit
from tiny_run import resumable_recipe as recipe
from tiny_run import train_losses

from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run, backbone_tensors
from kebyt5_xm.training.recipes import overlay


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    tiny_run.write_stores(folder)
    assert fit(folder, recipe(folder, "whole")) == [0], (folder / "log").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [9, 15, 26])
def test_killed_and_continued_is_bit_identical(folder: Path, micro_batch: int) -> None:
    """Kills fall inside an accumulation (9, 26) and on a step's end (15); checkpoints are every second step."""
    name = f"killed-{micro_batch}"
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": micro_batch}}
    assert fit(folder, recipe(folder, name, callbacks=[kill])) == [-signal.SIGKILL]
    assert max(step for step, _ in train_losses(folder / name)) <= tiny_run.STEPS - 1
    assert fit(folder, recipe(folder, name), "--ckpt_path", "last") == [0], (folder / "log").read_text()
    assert train_losses(folder / name) == train_losses(folder / "whole")
    whole, continued = (backbone_tensors(Run(folder / run).last) for run in ("whole", name))
    assert all(continued[key].equal(whole[key]) for key in whole)


@pytest.mark.slow
def test_a_validation_that_a_kill_interrupts_is_repeated(folder: Path) -> None:
    """The checkpoint of step 6 is written, then the run is killed in the validation of that step."""
    kill = {"class_path": "killing.KillInValidation", "init_args": {"step": 6}}
    assert fit(folder, recipe(folder, "cost", callbacks=[kill])) == [-signal.SIGKILL]
    assert Run(folder / "cost").last.name == "step=6.ckpt"
    assert fit(folder, recipe(folder, "cost"), "--ckpt_path", "last") == [0], (folder / "log").read_text()
    found = [
        {
            row["step"]: row["value"]
            for row in Run(folder / run).metrics()
            if row["metric"] == "val/bits_per_byte"
        }
        for run in ("cost", "whole")
    ]
    assert found[0] == found[1]
    assert list(found[0]) == [3, 6, tiny_run.STEPS]
    best = [checkpoint_step(Run(folder / run).best) for run in ("cost", "whole")]
    assert best[0] == best[1]


@pytest.mark.slow
def test_continued_on_two_ranks_keeps_the_order(folder: Path) -> None:
    """Dropout is off: its masks depend on the rank, so losses would differ although the order is the same."""

    def contents(run: str, **trainer: Any) -> dict[str, Any]:
        result = recipe(folder, run, **trainer)
        result["model"]["backbone"]["dropout"] = 0.0
        return result

    assert fit(folder, contents("one")) == [0]
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 17}}
    assert fit(folder, contents("moved", callbacks=[kill])) == [-signal.SIGKILL]
    codes = fit(folder, contents("moved", strategy="ddp", devices=2), "--ckpt_path", "last", ranks=2)
    assert codes == [0, 0], (folder / "log").read_text()
    assert train_losses(folder / "moved") == pytest.approx(train_losses(folder / "one"), rel=1e-5)


@pytest.mark.slow
def test_the_newest_two_checkpoints_are_kept_with_that_of_the_end(folder: Path) -> None:
    found = {path.name for path in (folder / "whole" / "checkpoints").iterdir()}
    kept = {"best.ckpt", "step=6.ckpt", f"step={tiny_run.STEPS}.ckpt"}
    assert found == kept | {f"{name}.digest" for name in kept}


@pytest.mark.slow
def test_a_changed_mixture_is_refused_with_the_difference(folder: Path) -> None:
    contents = recipe(folder, "whole", max_steps=tiny_run.STEPS + 2)
    contents["data"]["global_batch_size"] = 4
    contents["data"]["sources"]["text"]["init_args"]["noise_density"] = 0.2
    assert fit(folder, contents, "--ckpt_path", "last") == [2]
    message = (folder / "log").read_text()
    assert "global_batch: 8 examples -> 4 examples" in message
    assert "text.noise_density: 0.15 -> 0.2" in message
    assert "accept_changes" in message
    contents["data"]["accept_changes"] = True
    contents["run_dir"] = str(folder / "accepted")
    last = str(Run(folder / "whole").last)
    assert fit(folder, contents, "--ckpt_path", last) == [0], (folder / "log").read_text()
    assert "accepted: global_batch: 8 examples -> 4 examples" in (folder / "log").read_text()


@pytest.mark.slow
def test_validation_on_other_held_out_data(folder: Path) -> None:
    contents = recipe(folder, "whole")
    contents["data"]["sources"]["text"]["init_args"] |= {"validation": 0.11, "noise_density": 0.2}
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*")}
    path = tiny_run.write_recipe(folder, "other", contents)
    assert train(["validate", "-c", path, "--ckpt_path", "best"], folder / "log") == [0], (
        folder / "log"
    ).read_text()
    assert "val/bits_per_byte/text/ko" in (folder / "log").read_text()
    assert {path: path.stat().st_mtime_ns for path in (folder / "whole").rglob("*")} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone": {"shape": {"d_ff": 56}}}, "the checkpoint is of another model than the recipe's"),
        ({"groups": {"decoder": {"pattern": "backbone.decoder.*", "lr": 0.1}}}, "optimizer has other groups"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(folder: Path, changed: dict, message: str) -> None:
    contents = overlay(recipe(folder, "whole", max_steps=tiny_run.STEPS + 2), {"model": changed})
    assert fit(folder, contents, "--ckpt_path", "last") == [2]
    log = (folder / "log").read_text()
    assert message in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_run_is_never_overwritten(folder: Path) -> None:
    before = (folder / "whole" / "metrics.csv").read_bytes()
    assert fit(folder, recipe(folder, "whole")) == [2]
    assert "holds a run already; continue it with --ckpt_path last" in (folder / "log").read_text()
    assert (folder / "whole" / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_of_two_runs_that_start_together_one_gets_the_folder(folder: Path) -> None:
    contents = recipe(
        folder, "taken", callbacks=[{"class_path": "killing.TakeFolder"}], strategy="ddp", devices=2
    )
    assert fit(folder, contents, ranks=2) == [2, 2]
    assert "holds a run already; continue it with --ckpt_path last" in (folder / "log").read_text()
    assert [path.name for path in (folder / "taken").iterdir()] == ["config.yaml"]
    assert (folder / "taken" / "config.yaml").read_text() == "another: run\n"
