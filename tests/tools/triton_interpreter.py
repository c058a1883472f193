"""Runs Triton's kernels on the CPU: import this before Triton and in a process of its own."""

import os

os.environ["TRITON_INTERPRET"] = "1"

from triton.runtime import interpreter

_patch = interpreter._patch_lang_tensor


def _patch_tensor(tensor: type, scope: "interpreter._LangPatchScope") -> None:
    """Let loops begin and end at computed numbers, which Triton 3.6 does not with numpy from 2.4."""
    _patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


interpreter._patch_lang_tensor = _patch_tensor
