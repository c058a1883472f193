"""AdamW with updates scaled by the RMS of each matrix, and the optimizers that DeepSpeed ZeRO supports.

Adafactor and AdamW are torch's own: `torch.optim.Adafactor`, `torch.optim.AdamW`.
"""

# pyright: reportPrivateImportUsage=false
# torch._foreach_* run one kernel over a list of tensors; torch's own optimizers use them, but they are private.

import sys
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from kebyt5_xm.errors import UserError

# The smallest scale, so that a matrix that starts at zero still moves: epsilon_2 of Adafactor
# (Shazeer & Stern 2018, table in section 9).
MIN_SCALE = 1e-3

# torch's optimizers whose update of one element depends only on the history of that element.
ELEMENTWISE = (
    torch.optim.Adam,  # AdamW is one of its subclasses
    torch.optim.SGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Adamax,
    torch.optim.Adagrad,
    torch.optim.RMSprop,
)


class RMSScaledAdamW(torch.optim.Optimizer):
    """AdamW whose step for each parameter tensor is multiplied by `max(rms(tensor), 1e-3)`.

    A T5 trained from scratch by plain AdamW diverges, since its matrices start at very different scales (the
    embedding near 1, the projections near d_model^-0.5); steps in proportion to each matrix keep AdamW stable
    and beat Adafactor (NLL 1.953 against 1.995 on C4 in nanoT5). The RMS is Adafactor's "relative step"
    (Shazeer & Stern 2018, section 8) and covers the whole tensor even if FSDP2 shards it.
    Weight decay is decoupled, `p -= lr * weight_decay * p`, and is not scaled.

    lr: relative to the RMS, so about 1e-2 where AdamW has 1e-4 (nanoT5: 2e-2 with batch 128).
    betas, eps: as in Adam (Kingma & Ba 2015).
    Raises UserError for a value outside its range.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise UserError(f"found {name}={value} for RMSScaledAdamW, expected zero or more; correct it")
        if not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"found betas={betas} for RMSScaledAdamW, expected both in [0, 1); correct them")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Do one optimizer step; parameters without a gradient keep value and state."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(params, group)
        return loss

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if not state:
                # On the CPU, as in torch's optimizers: reading it never waits for a GPU.
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            state["step"] += 1
        lr, eps, (beta1, beta2) = group["lr"], group["eps"], group["betas"]
        steps = [state["step"].item() for state in states]

        scales = _rms(params)
        weights = _local_tensors(params)
        grads = _local_tensors([p.grad for p in params if p.grad is not None])
        exp_avgs = _local_tensors([state["exp_avg"] for state in states])
        exp_avg_sqs = _local_tensors([state["exp_avg_sq"] for state in states])

        torch._foreach_lerp_(exp_avgs, grads, 1 - beta1)
        torch._foreach_mul_(exp_avg_sqs, beta2)
        torch._foreach_addcmul_(exp_avg_sqs, grads, grads, 1 - beta2)
        denominators = torch._foreach_sqrt(exp_avg_sqs)
        torch._foreach_div_(denominators, [(1 - beta2**step) ** 0.5 for step in steps])
        torch._foreach_add_(denominators, eps)
        torch._foreach_div_(denominators, scales)  # scales stay on the device, so nothing waits
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_addcdiv_(weights, exp_avgs, denominators, [-lr / (1 - beta1**step) for step in steps])


def _rms(params: list[Tensor]) -> list[Tensor]:
    """Return `max(rms(p), MIN_SCALE)` of each whole tensor as a scalar on its device."""
    meshes = [p.device_mesh if isinstance(p, DTensor) else None for p in params]
    norms: dict[int, Tensor] = {}
    for mesh in set(meshes):
        members = [index for index, other in enumerate(meshes) if other == mesh]
        local_norms = torch._foreach_norm([params[index] for index in members], 2)
        if mesh is not None:  # stacked, so that all matrices of a mesh need one all-reduce
            stacked = torch.stack(local_norms)
            assert isinstance(stacked, DTensor)
            local_norms = stacked.full_tensor().unbind()
        norms.update(zip(members, local_norms, strict=True))
    scales = torch._foreach_div(
        [norms[index] for index in range(len(params))], [max(p.numel(), 1) ** 0.5 for p in params]
    )
    torch._foreach_clamp_min_(scales, MIN_SCALE)
    return list(scales)


def _local_tensors(tensors: list[Tensor]) -> list[Tensor]:
    """Return this rank's part of each tensor; all operations except the RMS are element-wise."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]


def is_elementwise(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer may run under DeepSpeed ZeRO, which passes it flat partitions.

    A flat partition has no matrices, so `RMSScaledAdamW` and `torch.optim.Adafactor` would silently compute
    something else. True for torch's element-wise optimizers and DeepSpeed's Adam; False for any other.
    """
    adam = sys.modules.get("deepspeed.ops.adam")  # not imported: the optimizer cannot be DeepSpeed's
    supported = ELEMENTWISE if adam is None else (*ELEMENTWISE, adam.FusedAdam, adam.DeepSpeedCPUAdam)
    return isinstance(optimizer, supported)
