"""Compiles launches of Triton kernels for Hopper on a machine without a GPU, and reads what they occupy."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kebyt5_xm.model.attention import triton_operators

HOPPER = GPUTarget("cuda", 90, 32)
SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that a block may use on Hopper."""
POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
}


@dataclass(frozen=True)
class Compiled:
    """What one kernel occupies: bytes of shared memory of a block, bytes of local memory of a thread."""

    name: str
    shared: int
    local: int
    tensor_cores: bool


@contextmanager
def compiled_launches() -> Iterator[list[Compiled]]:
    """Compile kernels instead of launching them; outputs are not computed."""
    found: list[Compiled] = []

    class Kernel:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, int, int]) -> Any:
            return lambda *args, **options: found.append(_compile(self.kernel, args, options))

    launch = triton_operators._launch

    def compile_launch(kernel: Any, *args: Any, **flags: bool) -> None:
        launch(Kernel(kernel), *args, **flags)

    with patch.object(triton_operators, "_launch", compile_launch):
        yield found


def _compile(kernel: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Compiled:
    values = dict(zip(kernel.arg_names, args, strict=False))
    values |= {name: options.pop(name) for name in list(options) if name in kernel.arg_names}
    constants = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    signature, constexprs, attributes = {}, {}, {}
    for place, name in enumerate(kernel.arg_names):
        value = values[name]
        if value is None or name in constants:
            signature[name], constexprs[(place,)] = "constexpr", value
        elif isinstance(value, tuple):
            signature[name] = ("i32",) * len(value)
            attributes |= {(place, n): _divisible(number) for n, number in enumerate(value)}
        else:
            signature[name] = POINTERS[value.dtype] if isinstance(value, Tensor) else "i32"
            attributes[(place,)] = _divisible(0 if isinstance(value, Tensor) else value)
    source = ASTSource(kernel, signature, constexprs, {place: a for place, a in attributes.items() if a})
    compiled = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    stack, local = (int(number) for number in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))
    return Compiled(
        kernel.__name__, compiled.metadata.shared, stack + local, "wgmma.mma_async" in compiled.asm["ptx"]
    )


def _divisible(number: int) -> list[list[Any]]:
    """Return what Triton knows of a number when it launches."""
    return [["tt.divisibility", 16]] if number % 16 == 0 else []
