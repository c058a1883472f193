"""Every implementation of attention gives the reference's outputs and gradients, for every rule of a pattern."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch._dynamo
from attention_cases import CASES, Case, difference, make_inputs

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.attention import flex, reference, triton_kernel
from kebyt5_xm.model.attention.pattern import Pattern

TOOLS = Path(__file__).parents[1] / "tools"
IMPLEMENTATIONS = {"flex": flex, "triton": triton_kernel}


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
@pytest.mark.parametrize("name", [*CASES, "compiled"])
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


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_flex_gives_outputs_and_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses gradients on the CPU, but the way in which it computes them there is right."""
    import torch.nn.attention.flex_attention as torch_flex

    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_refuse_gradients", lambda *_: None)
    torch._dynamo.reset()
    assert difference(flex.attention, make_inputs(CASES[name]), 2e-5) == ""


def test_flex_on_a_cpu_runs_without_gradients_and_refuses_them() -> None:
    inputs = make_inputs(CASES["packed"])
    arguments = (inputs.query, inputs.key, inputs.value, inputs.table, inputs.pattern)
    with torch.no_grad():
        torch.testing.assert_close(flex.attention(*arguments), reference.attention(*arguments))
    with pytest.raises(UserError, match="no gradients; use sdpa"):
        flex.attention(*arguments)


def test_flex_forgets_a_pattern_that_is_gone() -> None:
    pattern = Pattern(causal=True)
    query = torch.randn(1, 2, 7, 8)
    with torch.no_grad():
        flex.attention(query, query, query, None, pattern)
    assert pattern in flex._block_masks
    known = len(flex._block_masks)
    del pattern
    assert len(flex._block_masks) == known - 1


@pytest.mark.parametrize(
    ("name", "device", "dtype", "width", "found"),
    [
        ("triton", "cpu", torch.float32, 64, "device cpu, needs cuda"),
        ("flex", "mps", torch.float32, 64, "device mps, needs cuda"),
        ("flex", "cpu", torch.float64, 64, "torch.float64, expected float32"),
        ("flex", "cpu", torch.float32, 512, "width 512, expected 1 to 256"),
    ],
)
def test_what_cannot_run_is_refused_with_what_can(
    name: str, device: str, dtype: torch.dtype, width: int, found: str
) -> None:
    pytest.importorskip("triton")
    with pytest.raises(UserError, match=f"{found}.*; use sdpa, which can"):
        IMPLEMENTATIONS[name].check(torch.device(device), dtype, width)


@pytest.mark.parametrize(("dtype", "width"), [(torch.float64, 64), (torch.float32, 129)])
def test_triton_refuses_dtypes_and_widths(
    dtype: torch.dtype, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    triton_kernel.check(torch.device("cpu"), torch.float32, 128)
    with pytest.raises(UserError, match="; use sdpa, which can"):
        triton_kernel.check(torch.device("cpu"), dtype, width)


def test_importing_kernels_needs_no_triton_and_loads_nothing_else() -> None:
    program = """
import sys
sys.modules["triton"] = None
import torch
from kebyt5_xm.model.attention import pattern
before = {*sys.modules}
from kebyt5_xm.model.attention import flex, triton_kernel
print({name.partition(".")[0] for name in {*sys.modules} - before})
try:
    triton_kernel.check(torch.device("cuda"), torch.bfloat16, 64)
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "{'kebyt5_xm'}",
        "found no Triton, which attention in Triton needs; use sdpa, which can",
    ], done.stderr[-2000:]
