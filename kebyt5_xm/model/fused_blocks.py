"""Cheaper norms and activations for transformers' T5, with its weights, its names and its results.

transformers computes the tanh form of GELU in eight element-wise operations and a norm in five; each reads and writes
whole tensors and keeps them for the backward pass. `fuse` replaces both modules: the activation by PyTorch's fused
one, the norm by PyTorch's fused one on a GPU and by `_RMSNormOnCPU` on a CPU, where PyTorch has none.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import NewGELUActivation
from transformers.models.t5.modeling_t5 import T5LayerNorm


def fuse(model: nn.Module) -> None:
    """Replace the norms and the GELUs of a T5 in place. Parameters stay the same objects under the same names."""
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif type(child) is T5LayerNorm:
                setattr(module, name, RMSNorm(child))


class RMSNorm(T5LayerNorm):
    """T5's norm, x / rms(x) * weight, over the parameters of a `T5LayerNorm`.

    Half precision is normalised in fp32. If input and weight differ in dtype, and where the compiler fuses operations
    by itself, transformers' own operations run.
    """

    def __init__(self, norm: T5LayerNorm) -> None:
        nn.Module.__init__(self)  # allocates no second weight
        self.weight = norm.weight
        self.variance_epsilon = norm.variance_epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return the normalised states, in the shape [..., D] of `hidden_states`."""
        weight = self.weight
        if hidden_states.dtype == weight.dtype and not torch.compiler.is_compiling():
            if hidden_states.is_cuda:
                return F.rms_norm(hidden_states, weight.shape, weight, self.variance_epsilon)
            if hidden_states.device.type == "cpu" and weight.dtype in (torch.float32, torch.float64):
                normalised = _RMSNormOnCPU.apply(hidden_states, weight, self.variance_epsilon)
                assert isinstance(normalised, Tensor)
                return normalised
        return super().forward(hidden_states)


class _RMSNormOnCPU(torch.autograd.Function):
    """x r w with r = (mean(x^2) + eps)^-1/2 [..., 1], in few passes over memory.

    Keeps only the input, the weight and r. With g the gradient of the output and u = x r, the gradients are
    dw = sum(g u) over all positions and dx = r (g w - u mean(g u w)).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # reads x once, unlike its square's mean
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight, scale = ctx.saved_tensors
        unit = x * scale
        products = gradient * unit
        weight_gradient = products.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, weight_gradient, None
        with torch.autocast("cpu", enabled=False):
            mean = (products @ weight)[..., None].div_(-x.shape[-1]).mul_(scale)
        return (gradient * weight).mul_(scale).addcmul_(unit, mean), weight_gradient, None
