"""The environment of a process that computes: how PyTorch takes memory for large tensors, and how its threads wait.

`set_defaults` runs before torch is imported, so this file imports nothing slow.
"""

import os
import sys
from pathlib import Path

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""PyTorch's own switch (c10/core/impl/alloc_cpu.cpp): tensors of 2 MB and more are aligned to huge pages, and the
kernel is asked for them. Without it, up to a third of a step on a CPU goes into mapping pages of 4 kB. PyTorch reads
it at the first such tensor."""

WAITING = "OMP_WAIT_POLICY"
"""OpenMP's own variable, read when torch is imported. Its threads otherwise spin while they wait, which takes the
cores from data workers and from other programs."""

KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""`always [madvise] never`: the one in brackets holds (the kernel's admin-guide/mm/transhuge)."""


def set_defaults() -> None:
    """Set the variables that the user has not set, where the system has what they ask for."""
    if has_huge_pages():
        os.environ.setdefault(HUGE_PAGES, "1")
    os.environ.setdefault(WAITING, "PASSIVE")


def has_huge_pages(setting: Path = KERNEL_SETTING) -> bool:
    """Say whether the kernel gives huge pages to a process that asks."""
    if sys.platform != "linux":
        return False
    try:
        return "[never]" not in setting.read_text()
    except OSError:  # a kernel without them
        return False


def describe() -> str:
    """Return one line: what is in force."""
    import torch

    values = [f"{name}={os.environ[name]}" for name in (HUGE_PAGES, WAITING) if name in os.environ]
    threads = torch.get_num_threads()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"CPU: {', '.join([count, *values])}; a variable that you set yourself takes precedence"
