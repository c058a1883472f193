"""Every changed option of a resumed run is applied or refused."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run, backbone_tensors
from kebyt5_xm.schedules import Constant, Cosine, InverseSquareRoot
from kebyt5_xm.training import resuming
from kebyt5_xm.training.resuming import OptimizerOptions, check_changes, describe_changes, find_changes

DONE, TOTAL = 5, 11


def build(
    optimizer: type[Optimizer] = AdamW,
    schedule: Any = Cosine,
    shape: dict[str, Any] | None = None,
    groups: tuple[int, ...] = (2, 1),
    **options: Any,
) -> tuple[Optimizer, LRScheduler | None, OptimizerOptions]:
    """Return the optimizer, of two groups, the schedule and the recorded options of a recipe."""
    torch.manual_seed(3)
    parameters = [nn.Parameter(torch.ones(3)) for _ in range(3)]
    names = {id(p): f"p{n}" for n, p in enumerate(parameters)}
    second_group = options.pop("second_group", {})
    cut = groups[0]
    entries = [
        {"name": "a", "params": parameters[:cut]},
        {"name": "b", "params": parameters[cut:], **second_group},
    ]
    built = optimizer(entries, **{"lr": 0.3, **options})
    if schedule is None:
        return built, None, OptimizerOptions.of(built, names, None)
    scheduled = schedule(built, **(shape if shape is not None else {"total_steps": TOTAL, "warmup_steps": 2}))
    return built, scheduled, OptimizerOptions.of(built, names, scheduled)


def train(optimizer: Optimizer, schedule: LRScheduler | None, steps: int) -> NDArray[np.float64]:
    """Return the rates [step, group] of the steps."""
    rates = []
    for step in range(steps):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.full_like(parameter, 0.1 + step)
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return np.asarray(rates)


def resumed(before: dict[str, Any], now: dict[str, Any]) -> tuple[Optimizer, NDArray[np.float64], list[str]]:
    """Train `DONE` steps by one recipe, resume with another; return its optimizer, its rates and the changes."""
    optimizer, schedule, options = build(**before)
    train(optimizer, schedule, DONE)
    state = copy.deepcopy(optimizer.state_dict())
    schedule_state = copy.deepcopy(schedule.state_dict()) if schedule is not None else None
    old = OptimizerOptions(**json.loads(json.dumps(options.as_dict())))
    optimizer, schedule, options = build(**now)
    resuming.check_options(old, options, schedule)
    optimizer.load_state_dict(state)
    if schedule is not None and schedule_state is not None:
        schedule.load_state_dict(schedule_state)
    changes_applied = resuming.apply_options(old, options, optimizer, schedule, DONE)
    values = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.restored_groups = values  # pyright: ignore[reportAttributeAccessIssue]
    return optimizer, train(optimizer, schedule, TOTAL - DONE), changes_applied


def rates_of(recipe: dict[str, Any]) -> NDArray[np.float64]:
    optimizer, schedule, _ = build(**recipe)
    return train(optimizer, schedule, TOTAL)[DONE:]


SHAPE = {"total_steps": TOTAL, "warmup_steps": 2}


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"lr": 0.001}, ["a: lr 0.3 -> 0.001", "b: lr 0.3 -> 0.001"]),
        ({"second_group": {"lr": 0.02}}, ["b: lr 0.3 -> 0.02"]),
        ({"weight_decay": 0.3}, ["a: weight_decay 0.01 -> 0.3", "b: weight_decay 0.01 -> 0.3"]),
        ({"second_group": {"weight_decay": 0.0}}, ["b: weight_decay 0.01 -> 0.0"]),
        (
            {"betas": (0.5, 0.7)},
            ["a: betas [0.9, 0.999] -> [0.5, 0.7]", "b: betas [0.9, 0.999] -> [0.5, 0.7]"],
        ),
        ({"eps": 1e-3}, ["a: eps 1e-08 -> 0.001", "b: eps 1e-08 -> 0.001"]),
        ({"amsgrad": False}, []),
        ({"shape": SHAPE | {"warmup_steps": 7}}, ["schedule: warmup_steps 2 -> 7"]),
        ({"shape": SHAPE | {"total_steps": 17}}, ["schedule: total_steps 11 -> 17"]),
        ({"shape": SHAPE | {"final_fraction": 0.4}}, ["schedule: final_fraction 0.1 -> 0.4"]),
        ({"schedule": InverseSquareRoot}, None),
        ({"schedule": Constant, "shape": {"total_steps": TOTAL}}, None),
        ({"schedule": None}, None),
    ],
)
def test_changes_of_a_recipe_apply_from_the_next_step_on(
    now: dict[str, Any], words: list[str] | None
) -> None:
    optimizer, rates, found = resumed({}, now)
    assert rates == pytest.approx(rates_of(now))
    expected, _, _ = build(**now)
    for group, fresh in zip(optimizer.restored_groups, expected.param_groups, strict=True):  # pyright: ignore
        for key in ("weight_decay", "betas", "eps"):
            assert group[key] == fresh[key], key
            assert type(group[key]) is type(fresh[key])
    if words is None:
        assert found[0].startswith("schedule: class ")
    else:
        assert found == words


def test_a_schedule_that_is_added_starts_at_the_present_step() -> None:
    _, rates, _ = resumed({"schedule": None}, {})
    assert rates == pytest.approx(rates_of({}))


def test_an_unchanged_recipe_changes_nothing() -> None:
    for recipe in ({}, {"schedule": None}, {"schedule": ExponentialLR, "shape": {"gamma": 0.7}}):
        _, rates, found = resumed(recipe, recipe)
        assert found == []
        assert (rates == rates_of(recipe)).all(), "to the bit"


def test_the_rate_under_a_schedule_of_pytorch_is_scaled() -> None:
    recipe: dict[str, Any] = {"schedule": ExponentialLR, "shape": {"gamma": 0.7}}
    _, rates, _ = resumed(recipe, {**recipe, "lr": 0.03})
    assert rates == pytest.approx(rates_of({**recipe, "lr": 0.03}))


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (
            {},
            {"optimizer": Adam},
            r"model.optimizer is torch.optim.adam.Adam, .* state of a torch.optim.adamw.AdamW",
        ),
        ({"optimizer": SGD}, {}, r"state of a torch.optim.sgd.SGD"),
        ({}, {"groups": (1, 2)}, "other groups than the recipe's"),
        (
            {"schedule": ExponentialLR, "shape": {"gamma": 0.7}},
            {"schedule": ExponentialLR, "shape": {"gamma": 0.9}},
            r"model.schedule has changed \(gamma 0.7 -> 0.9\)",
        ),
        ({}, {"schedule": ExponentialLR, "shape": {"gamma": 0.9}}, "model.schedule has changed"),
    ],
)
def test_changes_that_do_not_fit_the_state_are_refused(before: dict, now: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resumed(before, now)


def test_options_of_older_checkpoints_are_read_from_the_optimizer() -> None:
    optimizer, schedule, _ = build()
    train(optimizer, schedule, DONE)
    _, _, now = build(lr=0.001, weight_decay=0.3)
    before = resuming.read_options(optimizer, now)
    assert [(group["lr"], group["weight_decay"]) for group in before.groups] == [(0.3, 0.01)] * 2


def test_changes_of_a_recipe_are_changes_applied_and_those_of_starting_weights_refused() -> None:
    before = {
        "run_dir": "a",
        "model": {"backbone": {"weights": "x", "dropout": 0.0}},
        "trainer": {"max_steps": 5},
    }
    now = {
        "run_dir": "b",
        "model": {"backbone": {"weights": "x", "dropout": 0.1}},
        "trainer": {"max_steps": None},
    }
    found = find_changes(before, now)
    assert describe_changes(found) == "model.backbone.dropout: 0.0 -> 0.1; trainer.max_steps: 5 -> null"
    check_changes(found)
    for key in ("backbone.weights", "modalities.image.weights"):
        with pytest.raises(
            UserError, match=rf"model.{key} is y, and was x .*takes its weights from the checkpoint"
        ):
            check_changes({f"model.{key}": ("x", "y")})


# -- whole runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resuming")
    tiny_run.write_stores(folder)
    assert tiny_run.fit_to_log(folder, tiny_run.recipe(folder, "first")) == [0], (folder / "log").read_text()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2", "zero2"])
def test_a_rate_that_is_changed_on_resume_is_used(folder: Path, strategy: str) -> None:
    from tiny_run import STRATEGIES

    contents = tiny_run.recipe(folder, strategy, strategy=STRATEGIES[strategy], devices=1)
    assert tiny_run.fit_to_log(folder, contents, ranks=1) == [0]
    contents["trainer"]["max_steps"] = tiny_run.STEPS + 2
    contents["model"]["optimizer"]["init_args"] |= {"lr": 0.0004, "weight_decay": 0.2}
    assert tiny_run.fit_to_log(folder, contents, "--ckpt_path", "last") == [0], (folder / "log").read_text()
    log = (folder / "log").read_text()
    assert "default: lr 0.003 -> 0.0004; default: weight_decay 0" in log
    rates = {
        row["step"]: row["value"] for row in Run(folder / strategy).metrics() if row["metric"] == "lr/default"
    }
    assert rates[tiny_run.STEPS + 1] < 0.0004
    assert {3, 6, tiny_run.STEPS, tiny_run.STEPS + 2} == {
        row["step"] for row in Run(folder / strategy).metrics() if row["metric"] == "val/loss"
    }, "every run ends with a validation"


@pytest.mark.slow
def test_the_starting_weights_may_be_gone(folder: Path) -> None:
    contents = tiny_run.recipe(folder, "second")
    contents["model"]["backbone"] = {"weights": str(folder / "first")}
    contents["trainer"]["max_steps"] = 4
    assert tiny_run.fit_to_log(folder, contents) == [0], (folder / "log").read_text()
    started = json.loads((folder / "second" / "backbone" / "config.json").read_text())["kebyt5_xm"][
        "started_from"
    ]
    assert started == ["first, step 7"], "not best.ckpt"
    first = (folder / "first").rename(folder / "moved")
    try:
        assert tiny_run.fit_to_log(folder, contents, "--ckpt_path", "last", "--trainer.max_steps", "5") == [0]
        other = {**contents, "model": {**contents["model"], "backbone": {"weights": str(first)}}}
        assert tiny_run.fit_to_log(folder, other, "--ckpt_path", "last") == [2]
        assert "model.backbone.weights is " in (folder / "log").read_text()
    finally:
        first.rename(folder / "first")
    assert backbone_tensors(Run(folder / "second").last)
