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

SPINNING = "GOMP_SPINCOUNT"
"""The turns in which a thread of GNU's OpenMP waits for work before it sleeps; read when torch is imported. Its own
300,000 make small steps several times slower on busy cores; none makes them 1.5 times slower on idle ones."""

SPIN_COUNT = "20000"
"""Near the best of both (docs/performance.md)."""

WAITING = "OMP_WAIT_POLICY"
"""OpenMP's own variable for the same; a user who sets it gets no `SPINNING`."""

KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""`always [madvise] never`: the one in brackets holds (the kernel's admin-guide/mm/transhuge)."""


def set_defaults() -> None:
    """Set the variables that the user has not set, where the system has what they ask for."""
    if has_huge_pages():
        os.environ.setdefault(HUGE_PAGES, "1")
    if WAITING not in os.environ:
        os.environ.setdefault(SPINNING, SPIN_COUNT)


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

    values = [f"{name}={os.environ[name]}" for name in (HUGE_PAGES, SPINNING, WAITING) if name in os.environ]
    threads = torch.get_num_threads()
    count = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"CPU: {', '.join([count, *values])}; a variable that you set yourself takes precedence"
