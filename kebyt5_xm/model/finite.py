"""Checks that numbers are finite: weights before they are written, figures before they are logged."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

MAX_NAMES = 3
"""Number of tensors that an error names."""


def non_finite_tensors(tensors: "Mapping[str, Tensor]") -> list[str]:
    """Return the names of the tensors that hold an infinity or a NaN. Waits for each device once."""
    import torch

    floats = {
        name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()
    }
    by_device: dict[torch.device, list[str]] = {}
    for name, tensor in floats.items():
        by_device.setdefault(tensor.device, []).append(name)
    bad: list[str] = []
    for names in by_device.values():
        # The largest magnitude is infinite or NaN if any value is.
        largest = torch.stack(
            [torch.linalg.vector_norm(floats[name].detach(), math.inf).float() for name in names]
        )
        finite = torch.isfinite(largest)
        if not finite.all():
            bad += [name for name, is_finite in zip(names, finite.tolist(), strict=True) if not is_finite]
    return bad


def non_finite_weights(module: "nn.Module") -> list[str]:
    """Return the names of the parameters that are not finite, and of the buffers that hold a NaN, on this rank.

    An infinity in a buffer may be intended, as in a mask. Of a sharded parameter, only this rank's shard is checked.
    """
    parameters = {name: _local(parameter) for name, parameter in module.named_parameters()}
    buffers = {
        name: _local(buffer).detach().nan_to_num(nan=math.nan, posinf=0.0, neginf=0.0)
        for name, buffer in module.named_buffers()
        if buffer.is_floating_point()
    }
    return non_finite_tensors({**parameters, **buffers})


def refuse_non_finite(tensors: "Mapping[str, Tensor]", target: str) -> None:
    """Raise `UserError` if weights to be written to `target` hold an infinity or a NaN."""
    if bad := non_finite_tensors(tensors):
        raise UserError(
            f"{target} would hold {describe_names(bad)} that are not finite, and is not written; take an earlier "
            "checkpoint of the run, and continue training from it with a lower learning rate"
        )


def describe_names(names: list[str]) -> str:
    """Return the number of tensors and the names of the first."""
    first = ", ".join(names[:MAX_NAMES])
    return f"{len(names)} tensors ({first}{' and others' if len(names) > MAX_NAMES else ''})"


def finite_figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that are finite, as floats."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _local(tensor: "Tensor") -> "Tensor":
    from torch.distributed.tensor import DTensor

    sharded = getattr(tensor, "ds_tensor", tensor)  # ZeRO 3 leaves the parameter itself empty
    return sharded.to_local() if isinstance(sharded, DTensor) else sharded
