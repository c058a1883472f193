"""Attention alone on a GPU in bf16, forward and backward: ours compared with torch's over a materialised bias.

Shapes are those of an encoder's self-attention over rows of 1024 positions:

- `full`: rows of one text;
- `packed`: rows of four texts that do not see each other.

The bias of `sdpa` is made before, once, as a stack does; its gradient is computed like that of our table. Rates count
the FLOP of visible pairs: two products forward and five backward.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.device import Device, Group
from benchmarks.gpu_training import FULL, TOY_FULL, Size, random_backbone
from kebyt5_xm.model.attention import flex, reference, triton_kernel
from kebyt5_xm.model.attention.pattern import Pattern

ROWS, TOY_ROWS = 16, 2
MAX_DISTANCE = 128
SHARES = (0.4, 0.3, 0.2, 0.1)
"""Of a packed row, for each of its texts."""
CALLS = 10
"""In one timing, so that launches and waiting for the device count little."""


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the measurements, by size and kind of rows."""
    for size in sizes:
        for kind in ("full", "packed"):
            yield (size, kind), partial(_prepare, size, kind, device, rates["matrix_tflop_per_s"])


def _prepare(
    size: Size, kind: str, device: Device, matrix_rate: float
) -> dict[str, Callable[[], dict[str, float]]]:
    config = random_backbone(size, device).config()
    rows, length = (TOY_ROWS, TOY_FULL[0]) if device.toy else (ROWS, FULL[0])
    heads, width = config.num_heads, config.d_kv
    generator = torch.Generator(device.kind).manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device=device.kind, dtype=torch.bfloat16)

    query, key, value = (
        normal(rows, length, heads, width).transpose(1, 2).requires_grad_() for _ in range(3)
    )
    table = normal(heads, 2 * MAX_DISTANCE + 1).float().requires_grad_()
    pattern = Pattern() if kind == "full" else _packed(rows, length, device.kind)
    seen = pattern.visible(length, length, torch.device(device.kind))
    with torch.no_grad():
        bias = pattern.bias(table.bfloat16(), length, length)
        assert bias is not None
        if seen is not None:
            bias = bias.masked_fill(~seen, float("-inf"))
    bias = bias.contiguous().requires_grad_()
    pairs = rows * length**2 if seen is None else int(seen.sum())
    tflop = 2 * heads * width * pairs / 1e12

    def attend(attention: Callable[..., Tensor]) -> Tensor:
        return attention(query, key, value, table, pattern)

    def attend_with_bias() -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, bias, scale=1.0)

    functions: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
        "sdpa": (attend_with_bias, bias),
        "triton": (lambda: attend(triton_kernel.attention), table),
        "reference": (lambda: attend(reference.attention), table),
        "flex": (lambda: attend(flex.attention), table),
    }
    if device.kind == "cpu":  # these have no gradients there, or do not run
        del functions["triton"], functions["flex"]
    found: dict[str, float] = {}
    grad = normal(rows, length, heads, width).transpose(1, 2)
    return {
        name: partial(
            _measure, name, function, [query, key, value, last], grad, tflop, matrix_rate, device, found
        )
        for name, (function, last) in functions.items()
    }


def _packed(rows: int, length: int, device: str) -> Pattern:
    """Return rows of texts that have `SHARES` of the row."""
    ends = [round(length * sum(SHARES[:n])) for n in range(1, len(SHARES))]
    places = torch.arange(length, device=device)
    segments = 1 + torch.bucketize(places, torch.tensor(ends, device=device), right=True)
    segments = segments.int().expand(rows, -1).contiguous()
    return Pattern(query_segments=segments, key_segments=segments)


def _measure(
    name: str,
    function: Callable[[], Tensor],
    inputs: list[Tensor],
    grad: Tensor,
    tflop: float,
    matrix_rate: float,
    device: Device,
    found: dict[str, float],
) -> dict[str, float]:
    """Return figures of one implementation; `found` keeps the seconds of each, for the ratio to sdpa."""
    calls, repeats = (1, 1) if device.toy else (CALLS, 5)

    def forward() -> None:
        for _ in range(calls):
            function()

    def both() -> None:
        for _ in range(calls):
            torch.autograd.grad(function(), inputs, grad)

    device.free_memory()
    seconds = device.measure_seconds(forward, warmup=1, repeats=repeats) / calls
    found[name] = device.measure_seconds(both, warmup=1, repeats=repeats) / calls
    rate = 7 * tflop / found[name]
    return {
        "forward_and_backward_ms": found[name] * 1000,
        "forward_ms": seconds * 1000,
        "forward_tflop_per_s": 2 * tflop / seconds,
        "tflop_per_s": rate,
        "share_of_matrix_rate": rate / matrix_rate,
        **({"ratio_to_sdpa": found["sdpa"] / found[name]} if "sdpa" in found else {}),
        **device.peak_memory(),
    }
