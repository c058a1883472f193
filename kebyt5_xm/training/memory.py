"""Memory of training: an estimate of what is known before step 0, and the peak that was measured."""

import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

NOT_COUNTED = "not counted: activations, batches, buffers of communication and of the framework"

FP32_BYTES = 4


@dataclass(frozen=True)
class Sharding:
    """How many ranks share each kind of tensor evenly, beyond what the tensors themselves show (FSDP2's do)."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    fp32_copies: bool = False
    """Whether weights of lower precision that train have an fp32 copy beside the optimizer's state."""


def sharding(strategy: Any) -> Sharding:
    """Return what a strategy of Lightning shards: DeepSpeed ZeRO 1 the optimizer, 2 gradients too, 3 weights too."""
    if not isinstance(strategy, DeepSpeedStrategy):
        return Sharding()
    stage = dict(strategy.config or {}).get("zero_optimization", {}).get("stage", 0)
    ranks = strategy.world_size
    return Sharding(*(ranks if stage >= needed else 1 for needed in (3, 2, 1)), fp32_copies=True)


def estimate_memory(
    model: nn.Module, optimizer: Callable[[Iterable], Optimizer], shared: Sharding = Sharding()
) -> str:
    """Return the printed estimate of one rank's memory by kind; the optimizer's state is measured."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    state = optimizer_bytes(trained, optimizer, torch.float32 if shared.fp32_copies else None)
    copies = 0
    if shared.fp32_copies:
        copies = sum(FP32_BYTES * _local(p).numel() for p in trained if p.dtype != torch.float32)
    kinds = {
        "weights": sum(map(_bytes, model.parameters())) / shared.weights,
        "gradients": sum(map(_bytes, trained)) / shared.gradients,
        "optimizer": (state + copies) / shared.optimizer,
    }
    listed = ", ".join(f"{kind} {_readable(size)}" for kind, size in kinds.items())
    return f"memory of a rank: {listed}, together {_readable(sum(kinds.values()))} ({NOT_COUNTED})"


def optimizer_bytes(
    parameters: Iterable[Tensor],
    optimizer: Callable[[Iterable], Optimizer],
    dtype: torch.dtype | None = None,
) -> int:
    """Return the bytes that the optimizer keeps for parameters, measured by one step on a twin of each shape.

    Its counters of steps are left out. `dtype` is that of the twins, the parameters' own unless given.
    """
    shapes = Counter((local.shape, dtype or local.dtype, local.device) for local in map(_local, parameters))
    total = 0
    for (shape, precision, device), count in shapes.items():
        twin = nn.Parameter(torch.zeros(shape, dtype=precision, device=device))
        twin.grad = torch.zeros_like(twin)
        trial = optimizer([{"params": [twin]}])
        trial.step()
        kept = (value for value in trial.state[twin].values() if isinstance(value, Tensor) and value.ndim)
        total += count * sum(map(_bytes, kept))
    return total


def peak_memory(device: torch.device) -> tuple[float, str]:
    """Return the peak in GB (1e9 bytes) of this process so far, and what it is the peak of."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9, "allocated by PyTorch on the GPU of rank 0"
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return peak / 1e9, "resident in the process of rank 0, libraries and data included"


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _bytes(tensor: Tensor) -> int:
    local = _local(tensor)
    return local.numel() * local.element_size()


def _readable(size: float) -> str:
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
