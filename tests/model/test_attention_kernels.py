"""Every implementation of attention gives the reference's outputs and gradients, for every rule of a pattern."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_cases import CASES, Case, make_inputs

from kebyt5_xm.model.attention import flex, triton_kernel

TOOLS = Path(__file__).parents[1] / "tools"
IMPLEMENTATIONS = {"flex": flex, "triton": triton_kernel}
GPU_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Of a tensor's largest value. A bf16 number has 8 bits, an fp16 number 11; both round weights and gradients."""


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    """Return the differences of all cases in Triton's interpreter, which only a process of its own can have."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, TOOLS / "triton_interpreter.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TOOLS)])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_triton_gives_outputs_and_gradients_in_its_interpreter(
    name: str, interpreted: dict[str, str]
) -> None:
    assert interpreted[name] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "everything", "spill"),
    [(64, False, 16), (128, False, 32), (64, True, 64)],
)
def test_triton_compiles_for_hopper_without_a_device(width: int, everything: bool, spill: int) -> None:
    """`spill`: bytes of a thread's registers, of at most 1020, that are kept in local memory."""
    pytest.importorskip("triton")
    from triton_ahead import SHARED_MEMORY, compiled_launches

    case = Case(
        queries=128,
        width=width,
        max_distance=128,
        causal=True,
        segments=("1x128", "1x128"),
        slots=everything,
        scores=everything,
        positions="any" if everything else "",
    )
    inputs = make_inputs(case).to(torch.bfloat16, rest=torch.float32)
    with pytest.MonkeyPatch.context() as patch, compiled_launches() as kernels:
        patch.setattr(triton_kernel, "check", lambda *_: None)
        inputs.results(triton_kernel.attention)
    assert [kernel.name for kernel in kernels] == ["forward_kernel", "query_kernel", "key_kernel"]
    for kernel in kernels:
        assert kernel.tensor_cores
        assert kernel.shared <= SHARED_MEMORY, kernel
        assert kernel.local <= spill, kernel
