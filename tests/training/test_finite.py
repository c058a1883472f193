"""Values that are not finite: they change no weight, are never the best, and overwrite no file."""

import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from safetensors.torch import load_file
from tiny_run import STRATEGIES, train_losses
from tiny_run import fit_and_read_log as fit
from torch import nn

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.json_numbers import to_json_values
from kebyt5_xm.model.finite import finite_figures, non_finite_tensors, non_finite_weights, refuse_non_finite
from kebyt5_xm.model.runs.run import Run, backbone_tensors
from kebyt5_xm.model.tensor_files import write_tensors
from kebyt5_xm.training.callbacks.checkpoints import Best
from kebyt5_xm.training.loggers import MetricsLog
from kebyt5_xm.training.step_watch import StepWatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finite")
    tiny_run.write_stores(folder)
    return folder


def poisoned(folder: Path, run: str, steps: list[int], most: int = 1, **trainer: Any) -> dict[str, Any]:
    poison = {
        "class_path": "killing.Poison",
        "init_args": {"steps": steps, "ranks": [trainer.get("devices", 1) - 1]},
    }
    callbacks = [poison, *trainer.pop("callbacks", [])]
    return {**tiny_run.recipe(folder, run, callbacks=callbacks, **trainer), "max_bad_steps": most}


def incidents(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "incidents.jsonl").read_text().splitlines()]


# -- single functions ----------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_tensors_that_are_not_finite_are_named_and_not_written(tmp_path: Path, bad: float) -> None:
    tensors = {"good": torch.ones(3), "number": torch.ones(2, dtype=torch.long), "none": torch.empty(0)}
    assert non_finite_tensors(tensors) == []
    tensors["half"] = torch.tensor([1.0, bad], dtype=torch.bfloat16)
    assert non_finite_tensors(tensors) == ["half"]
    with pytest.raises(
        UserError, match=r"would hold 1 tensors \(half\) that are not finite, and is not written"
    ):
        refuse_non_finite(tensors, "export 'x'")
    module = nn.Linear(2, 3)
    write_tensors(module, tmp_path / "model.safetensors")
    with torch.no_grad():
        module.bias[1] = bad
    assert non_finite_weights(module) == ["bias"]
    with pytest.raises(UserError, match=r"model.safetensors' would hold 1 tensors \(bias\)"):
        write_tensors(module, tmp_path / "model.safetensors")
    assert load_file(tmp_path / "model.safetensors")["bias"].isfinite().all(), "what was there stays"


def test_a_buffer_may_hold_infinities_but_no_nan() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    assert non_finite_weights(module) == []
    module.register_buffer("mean", torch.tensor([0.0, math.nan]))
    assert non_finite_weights(module) == ["mean"]


def stepped(
    losses: torch.Tensor, gradient: float, momentum: float = 0.9
) -> tuple[StepWatch, list[torch.Tensor]]:
    """Take a good step, then one with these losses and gradient; return the watch and the weights around it."""
    weight = nn.Parameter(torch.ones(5))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=momentum, weight_decay=0.1)
    weight.grad = torch.ones(5)
    optimizer.step()
    before = weight.detach().clone()
    watch = StepWatch()
    watch.begin()
    for part in losses.split(2):
        watch.add_loss(part, 0.5)
    weight.grad = torch.full((5,), gradient)
    watch.judge(optimizer)
    optimizer.step()
    return watch, [before, weight.detach()]


@pytest.mark.parametrize(
    ("loss", "gradient", "finite"),
    [
        (2.0, 3.0, True),
        (math.nan, 3.0, False),
        (math.inf, 3.0, False),
        (2.0, math.nan, False),
        (2.0, math.inf, False),
        (2.0, 1e30, False),  # its square is infinite, and so would be Adam's second moment
    ],
)
def test_a_step_changes_weights_only_if_loss_and_gradient_are_finite(
    loss: float, gradient: float, finite: bool
) -> None:
    losses = torch.ones(3, 7)
    losses[2, 4] = loss
    watch, (before, after) = stepped(losses, gradient)
    assert watch.is_finite is finite
    assert before.equal(after) is not finite, "neither momentum nor decay moves a weight"
    assert watch.bad_rows() == [[], [0] if not math.isfinite(loss) else []]


def test_a_loss_that_is_not_finite_has_a_nan_gradient() -> None:
    """On any rank: the sum of the gradients over the ranks is then NaN on all."""
    logits = torch.tensor([[0.0, -math.inf]], requires_grad=True)
    losses = nn.functional.cross_entropy(logits, torch.tensor([1]), reduction="none")[:, None]
    assert losses.isinf().all()
    (gradient,) = torch.autograd.grad(losses.sum(), logits, retain_graph=True)
    assert gradient.isfinite().all(), "without the watch nothing would be noticed"
    StepWatch().add_loss(losses, 1.0).backward()
    assert logits.grad is not None
    assert logits.grad.isnan().any()


def test_a_finite_loss_is_unchanged() -> None:
    losses = torch.rand(5, 7, requires_grad=True)
    assert StepWatch().add_loss(losses, 0.3).equal(losses.sum() * 0.3)
    assert torch.autograd.grad(StepWatch().add_loss(losses, 0.3), losses)[0].equal(torch.full((5, 7), 0.3))


def test_values_that_are_not_finite_are_neither_logged_nor_read(tmp_path: Path) -> None:
    assert finite_figures({"a": 1, "b": math.nan, "c": math.inf}) == {"a": 1.0}
    log = MetricsLog(tmp_path)
    log.log_metrics({"train/loss": math.nan, "lr/default": 0.5}, 6)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,metric,value", "7,lr/default,0.5"]
    (tmp_path / "config.yaml").touch()
    with (tmp_path / "metrics.csv").open("a") as file:  # of an older version
        file.write("8,val/loss,nan\n8,val/bits_per_byte,inf\n")
    assert [row["step"] for row in Run(tmp_path).metrics()] == [7]
    assert to_json_values({"loss": math.nan, "worst": [math.inf, 2.0]}) == {
        "loss": None,
        "worst": [None, 2.0],
    }


class OneRank:
    """The part of a trainer that a comparison needs."""

    class strategy:
        @staticmethod
        def reduce_boolean_decision(decision: bool) -> bool:
            return decision


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(mode: str, bad: float) -> None:
    best = Best.__new__(Best)
    best.mode, best.save_top_k, best.best_k_models = mode, 1, {}
    assert not best.check_monitor_top_k(OneRank(), torch.tensor(bad))  # pyright: ignore
    assert best.check_monitor_top_k(OneRank(), torch.tensor(3.0))  # pyright: ignore


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one", *STRATEGIES])
def test_a_bad_step_of_one_rank_is_left_out_on_all(folder: Path, name: str) -> None:
    """The last of seven steps, so that the two newest checkpoints are the one before it and the one after."""
    ranks = 1 if name == "one" else 2
    sharded = {} if name == "one" else {"strategy": STRATEGIES[name], "devices": 2}
    contents = poisoned(folder, f"left-out-{name}", [tiny_run.STEPS - 1], most=2, **sharded)
    contents["model"]["optimizer"]["init_args"]["weight_decay"] = 0.1
    codes, log = fit(folder, {**contents, "checkpoint_every": 1}, ranks=ranks)
    assert codes == [0] * ranks, log[-3000:]
    run = folder / f"left-out-{name}"
    before, after = (backbone_tensors(run / "checkpoints" / f"step={step}.ckpt") for step in (6, 7))
    assert all(after[key].equal(before[key]) for key in before)
    (row,) = incidents(run)
    assert (row["step"], row["what"], row["loss"]) == (tiny_run.STEPS, "step", "nan")
    assert set(row["sources"]) <= {"text/ko", "text/en"}
    assert len(row["rows"]) == tiny_run.GLOBAL_BATCH / ranks
    assert f"step {tiny_run.STEPS}: loss nan" in log


@pytest.mark.slow
def test_a_run_stops_saved_and_continues_after_the_step(folder: Path) -> None:
    contents = poisoned(folder, "stopped", [4])
    codes, log = fit(folder, contents)
    assert codes == [2]
    assert "error: step 5: loss nan and gradient norm nan are not both finite" in log
    assert "Traceback" not in log
    run = folder / "stopped"
    names = {path.name for path in (run / "checkpoints").glob("*.ckpt")}
    assert names == {"best.ckpt", "step=2.ckpt", "step=4.ckpt", "step=5.ckpt"}, "none was deleted for it"
    assert not any("train/loss" in row["metric"] for row in Run(run).metrics() if row["step"] == 5)
    codes, log = fit(folder, contents, "--ckpt_path", "last")
    assert codes == [0], log
    assert max(step for step, _ in train_losses(run)) == tiny_run.STEPS


@pytest.mark.slow
def test_a_poisoned_run_that_is_killed_continues_bit_identically(folder: Path) -> None:
    """Two bad steps are skipped; the kill comes before the next checkpoint."""
    codes, log = fit(folder, poisoned(folder, "whole", [2, 4], most=2))
    assert codes == [0], log
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 20}}
    assert fit(folder, poisoned(folder, "killed", [2, 4], most=2, callbacks=[kill]))[0] == [-signal.SIGKILL]
    codes, log = fit(folder, poisoned(folder, "killed", [2, 4], most=2), "--ckpt_path", "last")
    assert codes == [0], log
    assert train_losses(folder / "killed") == train_losses(folder / "whole")
    assert incidents(folder / "killed") == incidents(folder / "whole")
    whole, killed = (backbone_tensors(Run(folder / run).last) for run in ("whole", "killed"))
    assert all(killed[key].equal(whole[key]) for key in whole)


@pytest.mark.slow
def test_a_weight_that_is_not_finite_is_not_written(folder: Path) -> None:
    spoil = {"class_path": "killing.SpoilWeight", "init_args": {"step": 6}}
    codes, log = fit(folder, tiny_run.recipe(folder, "spoiled", callbacks=[spoil]))
    assert codes == [2]
    assert "error: step 6: 1 tensors (model.backbone.shared.weight) are not finite" in log
    names = {path.name for path in (folder / "spoiled" / "checkpoints").glob("*.ckpt")}
    assert names == {"best.ckpt", "step=2.ckpt", "step=4.ckpt"}
    assert all(tensor.isfinite().all() for tensor in backbone_tensors(Run(folder / "spoiled").last).values())


@pytest.mark.slow
def test_a_validation_that_is_not_finite_is_recorded_and_never_the_best(folder: Path) -> None:
    contents = tiny_run.recipe(folder, "validated", val_check_interval=1)
    contents["model"]["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 1e30}}
    assert fit(folder, contents)[0] == [2]
    first, second = incidents(folder / "validated")
    assert (first["step"], first["what"]) == (1, "validation")
    assert "text/ko" in first["parts"]
    assert (second["step"], second["what"]) == (2, "step")
    assert not (folder / "validated" / "checkpoints" / "best.ckpt").exists()
    assert "nan" not in (folder / "validated" / "metrics.csv").read_text()
