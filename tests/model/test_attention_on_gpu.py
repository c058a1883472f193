"""Kernels of attention on a GPU: outputs and gradients of the reference in float64, equal bits in every run."""

from typing import Any

import pytest
import torch
import torch._dynamo
from attention_cases import Case, difference, make_inputs

from kebyt5_xm.model.attention import flex, triton_kernel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Of a tensor's largest value. Weights and gradients are rounded to the 8 bits of bf16, or the 11 of fp16."""
PACKED = ("1x200 2x7 3x250 0x55", "1x511 2x1")
CASES = {
    "odd_encoder": Case(rows=3, heads=4, queries=509, width=64, max_distance=128),
    "packed_decoder": Case(queries=512, width=64, max_distance=128, causal=True, segments=PACKED),
    "narrow_cross": Case(
        queries=189,
        keys=512,
        width=32,
        max_distance=0,
        segments=("1x100 2x89/1x300 2x212", "1x189/1x400 0x112"),
    ),
    "shortened": Case(queries=256, width=64, max_distance=128, positions="ordered", scores=True),
    "wide_slots": Case(
        queries=300, width=128, max_distance=128, slots=True, segments=("1x300", "1x290 0x10")
    ),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.bfloat16) for name in CASES),
        ("packed_decoder", torch.float16),
        ("packed_decoder", torch.float32),
    ],
)
def test_triton(name: str, dtype: torch.dtype) -> None:
    inputs = make_inputs(CASES[name]).to(dtype, "cuda", rest=torch.float32)
    assert difference(triton_kernel.attention, inputs, TOLERANCES[dtype]) == ""


@pytest.mark.parametrize("name", ["packed_decoder", "shortened"])
def test_flex(name: str) -> None:
    inputs = make_inputs(CASES[name]).to(torch.bfloat16, "cuda", rest=torch.float32)
    torch._dynamo.reset()
    assert difference(flex.attention, inputs, TOLERANCES[torch.bfloat16]) == ""


@pytest.mark.parametrize("name", ["packed_decoder", "shortened"])
def test_triton_gives_equal_bits(name: str) -> None:
    inputs = make_inputs(CASES[name]).to(torch.bfloat16, "cuda", rest=torch.float32)
    first, second = inputs.results(triton_kernel.attention), inputs.results(triton_kernel.attention)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_triton_is_part_of_a_compiled_graph() -> None:
    inputs = make_inputs(CASES["packed_decoder"]).to(torch.bfloat16, "cuda", rest=torch.float32)

    def doubled(*args: Any) -> torch.Tensor:
        return 2 * triton_kernel.attention(*args)

    torch._dynamo.reset()
    found = inputs.results(torch.compile(doubled, fullgraph=True))
    for key, right in inputs.results(doubled).items():
        torch.testing.assert_close(found[key], right, rtol=2e-2, atol=2e-2)
