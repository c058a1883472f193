"""The device that a model computes on, with one-line errors if it cannot be used or runs out of memory."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kebyt5_xm.errors import UserError, first_line


def open_device(name: str) -> torch.device:
    """Return the device `name`, such as `cpu`, `cuda` or `cuda:1`. Raises `UserError` if it cannot be used."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).tolist()
    except (
        Exception
    ) as error:  # each backend raises its own: RuntimeError, AssertionError, NotImplementedError
        cause = first_line(error)
        cards = torch.cuda.device_count()
        remedy = "cpu" if not cards else f"cpu, or cuda:0 to cuda:{cards - 1}"
        raise UserError(f"cannot compute on '{name}' ({cause}); expected {remedy}") from error
    return device


@contextmanager
def explain_out_of_memory(device: torch.device, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error within the block into a `UserError` with the remedy."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "allocate memory" not in str(
            error
        ):
            raise
        cause = first_line(error)[:200]
        raise UserError(f"'{device}' is out of memory ({cause}); {remedy}, or use another device") from error


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, or the CPU's architecture, cores and threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
