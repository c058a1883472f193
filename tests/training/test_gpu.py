"""Tests that need a GPU: `make test-gpu`, on a machine with CUDA."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from processes import train

from kebyt5_xm.model.runs.run import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


def train_losses(folder: Path, name: str, **trainer: Any) -> dict[int, float]:
    """Train a tiny model; return step -> loss."""
    path = tiny_run.write_recipe(folder, name, tiny_run.recipe(folder, name, **trainer))
    assert train(["fit", "-c", path], folder / f"{name}.log") == [0], (folder / f"{name}.log").read_text()
    return {
        row["step"]: row["value"] for row in Run(folder / name).metrics() if row["metric"] == "train/loss"
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    tiny_run.write_stores(folder)
    return folder


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    # fp32 kernels sum in another order, which Adam amplifies; bf16 has 8 bits of mantissa
    [("32-true", 1e-3), ("bf16-mixed", 3e-2)],
)
def test_a_gpu_gives_the_losses_of_a_cpu(folder: Path, precision: str, tolerance: float) -> None:
    """The relative bias gets its gradient on CUDA too: some kernels drop it silently (pytorch #196678)."""
    on_cpu = train_losses(folder, f"cpu-{precision}")
    on_gpu = train_losses(folder, f"gpu-{precision}", accelerator="gpu", devices=1, precision=precision)
    assert len(on_cpu) == tiny_run.STEPS
    assert on_gpu == pytest.approx(on_cpu, rel=tolerance)
