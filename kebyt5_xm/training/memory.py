"""Memory of training: an estimate before the first step, and the measured peak."""

import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from kebyt5_xm.training.sharding import Sharding

NOT_COUNTED = "not counted: activations, batches, buffers of communication and of the framework"

FP32_BYTES = 4


def estimate_memory(
    model: nn.Module, optimizer: Callable[[Iterable], Optimizer], sharding: Sharding | None = None
) -> str:
    """Return one line that estimates the memory of a rank by kind of tensor. The optimizer's state is measured."""
    sharding = sharding or Sharding()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = optimizer_bytes(trainable, optimizer, torch.float32 if sharding.fp32_copies else None)
    copies = 0
    if sharding.fp32_copies:
        copies = sum(FP32_BYTES * _local(p).numel() for p in trainable if p.dtype != torch.float32)
    kinds = {
        "weights": sum(map(_num_bytes, model.parameters())) / sharding.weights,
        "gradients": sum(map(_num_bytes, trainable)) / sharding.gradients,
        "optimizer": (state + copies) / sharding.optimizer,
    }
    listed = ", ".join(f"{kind} {_format_bytes(size)}" for kind, size in kinds.items())
    return f"memory of a rank: {listed}, together {_format_bytes(sum(kinds.values()))} ({NOT_COUNTED})"


def optimizer_bytes(
    parameters: Iterable[Tensor],
    optimizer: Callable[[Iterable], Optimizer],
    dtype: torch.dtype | None = None,
) -> int:
    """Return the bytes of the optimizer's state, measured by one step on a copy of each shape of parameter.

    Step counters are left out. `dtype` is the precision of the copies; by default it is that of the parameters.
    """
    shapes = Counter((local.shape, dtype or local.dtype, local.device) for local in map(_local, parameters))
    total = 0
    for (shape, precision, device), count in shapes.items():
        copy = nn.Parameter(torch.zeros(shape, dtype=precision, device=device))
        copy.grad = torch.zeros_like(copy)
        trial = optimizer([{"params": [copy]}])
        trial.step()
        state = (value for value in trial.state[copy].values() if isinstance(value, Tensor) and value.ndim)
        total += count * sum(map(_num_bytes, state))
    return total


def peak_memory(device: torch.device) -> tuple[float, str]:
    """Return the peak in GB (1e9 bytes) of this process so far, and what is counted."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9, "allocated by PyTorch on the GPU of rank 0"
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak / 1e9, "resident in the process of rank 0, libraries and data included"


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _num_bytes(tensor: Tensor) -> int:
    local = _local(tensor)
    return local.numel() * local.element_size()


def _format_bytes(size: float) -> str:
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
