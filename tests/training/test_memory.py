"""The estimate of memory by kind of tensor; the optimizer's state is its real state."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from kebyt5_xm.optimizers import RMSScaledAdamW
from kebyt5_xm.training.memory import estimate_memory
from kebyt5_xm.training.sharding import Sharding

ROWS, COLUMNS, FROZEN = 5003, 7001, 11_003


def model(dtype: torch.dtype = torch.float32) -> nn.Module:
    made = nn.Module()
    made.matrix = nn.Parameter(torch.zeros(ROWS, COLUMNS, dtype=dtype))
    made.table = nn.Parameter(torch.zeros(FROZEN, 101, dtype=dtype), requires_grad=False)
    return made


def megabytes(line: str) -> dict[str, float]:
    found = {}
    for part in line.partition(": ")[2].partition(" (")[0].split(", "):
        kind, size, unit = part.rsplit(" ", 2)
        found[kind] = float(size) * {"kB": 0.001, "MB": 1, "GB": 1000}[unit]
    return found


def test_matrices_of_one_shape_count_each() -> None:
    made = nn.ModuleList(nn.Linear(COLUMNS, ROWS, bias=False) for _ in range(3))
    found = megabytes(estimate_memory(made, torch.optim.AdamW))
    assert found["optimizer"] == pytest.approx(4e-6 * 3 * 2 * ROWS * COLUMNS, rel=0.01)


@pytest.mark.parametrize(
    ("optimizer", "numbers"),
    [
        (torch.optim.AdamW, 2 * ROWS * COLUMNS),
        (RMSScaledAdamW, 2 * ROWS * COLUMNS),
        (torch.optim.Adafactor, ROWS + COLUMNS),
        (partial(torch.optim.SGD, lr=0.1), 0),
    ],
)
def test_weights_gradients_and_the_optimizers_state(optimizer: Any, numbers: int) -> None:
    line = estimate_memory(model(), optimizer)
    trainable, frozen = ROWS * COLUMNS, FROZEN * 101
    assert megabytes(line) == pytest.approx(
        {
            "weights": 4e-6 * (trainable + frozen),
            "gradients": 4e-6 * trainable,
            "optimizer": 4e-6 * numbers,
            "together": 4e-6 * (2 * trainable + frozen + numbers),
        },
        rel=0.01,
        abs=0.1,
    )
    assert "not counted: activations" in line


def test_a_rank_has_its_share_and_zero_keeps_fp32_copies() -> None:
    found = megabytes(
        estimate_memory(model(torch.bfloat16), torch.optim.AdamW, Sharding(1, 2, 3, fp32_copies=True))
    )
    trainable = ROWS * COLUMNS
    assert found["gradients"] == pytest.approx(2e-6 * trainable / 2, rel=0.01)
    assert found["optimizer"] == pytest.approx(4e-6 * 3 * trainable / 3, rel=0.01)
