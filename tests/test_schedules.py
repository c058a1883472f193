"""Schedules: published values, resume, and YAML."""

from collections.abc import Callable

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kebyt5_xm.errors import UserError
from kebyt5_xm.schedules import Constant, Cosine, InverseSquareRoot, WarmupStableDecay


def optimizer() -> Optimizer:
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    return torch.optim.SGD([{"params": [first], "lr": 2.0}, {"params": [second], "lr": 0.5}])


def rates(schedule: LRScheduler, steps: int) -> list[float]:
    """Return the learning rate of the first group at each of the next optimizer steps."""
    seen = []
    for _ in range(steps):
        first, second = (group["lr"] for group in schedule.optimizer.param_groups)
        assert first == pytest.approx(4 * second)
        seen.append(first)
        schedule.optimizer.step()
        schedule.step()
    return seen


def test_cosine():
    seen = rates(Cosine(optimizer(), total_steps=8, warmup_steps=2, final_fraction=0.25), 11)
    assert seen[:2] == pytest.approx([1.0, 2.0])
    assert seen[4] == pytest.approx(2 * (0.25 + 1) / 2)  # halfway down
    assert seen[7:] == pytest.approx([0.5] * 4)  # the last step and later ones
    assert seen[1:8] == sorted(seen[1:8], reverse=True)


def test_inverse_square_root_as_in_t5():
    seen = rates(InverseSquareRoot(optimizer(), total_steps=100, warmup_steps=4), 64)
    assert seen[:4] == [2.0] * 4
    assert seen[15] == pytest.approx(1.0)
    assert seen[63] == pytest.approx(0.5)


def test_inverse_square_root_with_linear_warmup():
    seen = rates(InverseSquareRoot(optimizer(), total_steps=100, warmup_steps=4, warmup="linear"), 16)
    assert seen[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert seen[15] == pytest.approx(1.0)


def test_constant():
    assert rates(Constant(optimizer(), total_steps=5), 6) == [2.0] * 6
    assert rates(Constant(optimizer(), total_steps=5, warmup_steps=5), 3) == pytest.approx([0.4, 0.8, 1.2])


def test_warmup_stable_decay():
    def found(**settings: object) -> list[float]:
        schedule = WarmupStableDecay(
            optimizer(), total_steps=10, warmup_steps=2, decay_fraction=0.4, **settings
        )
        return rates(schedule, 12)

    assert found()[:7] == pytest.approx([1.0, *[2.0] * 6])
    assert found()[7:] == pytest.approx([2 - 2 * (n / 4) ** 0.5 for n in (1, 2, 3, 4, 4)])
    assert found(shape="linear", final_fraction=0.2)[6:] == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4, 0.4])
    assert rates(WarmupStableDecay(optimizer(), 5, 0, decay_fraction=0.0), 5) == [2.0] * 5


def test_a_resumed_run_continues_and_may_have_more_steps():
    whole = rates(Cosine(optimizer(), total_steps=13, warmup_steps=3), 13)
    first = Cosine(optimizer(), total_steps=13, warmup_steps=3)
    rates(first, 5)
    saved = {"schedule": first.state_dict(), "optimizer": first.optimizer.state_dict()}

    def resume(total_steps: int) -> list[float]:
        schedule = Cosine(optimizer(), total_steps=total_steps, warmup_steps=3)
        schedule.load_state_dict(saved["schedule"])
        schedule.optimizer.load_state_dict(saved["optimizer"])
        return rates(schedule, 8)

    assert resume(13) == whole[5:]
    assert resume(23)[1:] == rates(Cosine(optimizer(), total_steps=23, warmup_steps=3), 13)[6:]


@pytest.mark.parametrize(
    ("schedule", "settings", "named"),
    [
        (Cosine, {"warmup_steps": 11}, "warmup_steps=11"),
        (Cosine, {"warmup_steps": 3, "final_fraction": 1.5}, "final_fraction=1.5"),
        (WarmupStableDecay, {"warmup_steps": 9}, "warmup_steps=9 and a decay over 2 of 10"),
        (WarmupStableDecay, {"warmup_steps": 1, "decay_fraction": 1.5}, "decay_fraction=1.5"),
        (Constant, {"warmup_steps": -1}, "warmup_steps=-1"),
        (InverseSquareRoot, {"warmup_steps": 0}, "warmup_steps=0"),
    ],
)
def test_invalid_values_are_refused(schedule: type, settings: dict, named: str):
    with pytest.raises(UserError, match=named):
        schedule(optimizer(), 10, **settings)


def test_in_yaml():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--schedule", type=Callable[[Optimizer, int], LRScheduler])

    def parse(class_name: str, **init_args: object) -> Callable[[Optimizer, int], LRScheduler]:
        config = {"schedule": {"class_path": f"kebyt5_xm.schedules.{class_name}", "init_args": init_args}}
        return parser.instantiate(parser.parse_object(config)).schedule

    schedule = parse("InverseSquareRoot", warmup_steps=4, warmup="linear")(optimizer(), 9)
    assert isinstance(schedule, InverseSquareRoot)
    assert schedule.total_steps == 9
    assert rates(schedule, 2) == pytest.approx([0.5, 1.0])
    assert isinstance(parse("Constant")(optimizer(), 7), Constant)
    for class_name, wrong in [
        ("Cosine", {"warmup_step": 3}),
        ("Cosine", {"warmup_steps": "three"}),
        ("Cosine", {}),
        ("InverseSquareRoot", {"warmup_steps": 3, "warmup": "cubic"}),
        ("Schedules", {"warmup_steps": 3}),
    ]:
        with pytest.raises(ArgumentError):
            parse(class_name, **wrong)
