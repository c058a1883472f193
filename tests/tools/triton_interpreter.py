"""Compares the Triton kernels of attention with the reference, in Triton's interpreter on the CPU, in fp32.

    python triton_interpreter.py CASE ...      cases of `attention_cases`, or all

prints a JSON object: case -> "" or the difference; "compiled" is a case as part of a graph of torch.compile.

Two habits of the interpreter of Triton 3.6 are changed: it cannot begin or end a loop at a computed number with numpy
from 2.4, and it patches the whole language at every call of a function by a kernel, which takes most of the time.
"""

import json
import os
import sys
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

TILES = ((16, 16), (32, 16), (16, 32))
COMPILED = "slots_in_packed_rows"
TOLERANCE = 2e-5
"""Of a tensor's largest value, in fp32."""

_patch_tensor = interpreter._patch_lang_tensor
_patched: set[str] = set()


def _patch_tensor_and_index(tensor: type, scope: Any) -> None:
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def _call(self: Any, *args: object, **kwargs: object) -> object:
    if self.fn.__module__ not in _patched:
        _patched.add(self.fn.__module__)
        interpreter._patch_lang(self.fn)
    return self.rewrite()(*args, **kwargs)


interpreter._patch_lang_tensor = _patch_tensor_and_index
interpreter.InterpretedFunction.__call__ = _call  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    """Compare the cases with small tiles of several proportions."""
    import torch
    from attention_cases import CASES, difference, make_inputs

    from kebyt5_xm.model.attention import triton_kernel, triton_operators

    found = {}
    for number, (name, case) in enumerate(CASES.items()):
        queries, keys = TILES[number % len(TILES)]
        triton_operators.blocks = lambda *_, q=queries, k=keys: triton_operators.Blocks(q, k, 4, 2)
        if name in (sys.argv[1:] or CASES):
            found[name] = difference(triton_kernel.attention, make_inputs(case), TOLERANCE)
    compiled = torch.compile(triton_kernel.attention, backend="aot_eager", fullgraph=True)
    found["compiled"] = difference(compiled, make_inputs(CASES[COMPILED]), TOLERANCE)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
