"""Where a model computes: a device by its name, refused in one line where there is none or its memory ends."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kebyt5_xm.errors import UserError, first_line


def open_device(name: str) -> torch.device:
    """Return the device of that name, such as `cpu`, `cuda` or `cuda:1`. Raises `UserError` if it cannot be used."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: each backend has its own
        cause = first_line(error)
        cards = torch.cuda.device_count()
        remedy = "cpu" if not cards else f"cpu, or cuda:0 to cuda:{cards - 1}"
        raise UserError(f"cannot compute on '{name}' ({cause}); expected {remedy}") from error
    return device


@contextmanager
def explain_out_of_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Turn the end of the device's memory within the block into a `UserError` with the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(
            error
        ):
            raise
        cause = first_line(error)[:200]
        raise UserError(
            f"the memory of '{device}' does not suffice ({cause}); {remedy}, or take another device"
        ) from error


def device_name(device: torch.device) -> str:
    """Return what a device is, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
