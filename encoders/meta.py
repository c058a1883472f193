"""A forward pass on the meta device: output shapes and used parameters, without computing any number.

Parameters and buffers are replaced by meta tensors during the call only, so nothing is copied and the module does not
change.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Call(nn.Module):
    """Wraps a function of a module as the `forward` that `functional_call` runs."""

    def __init__(self, module: nn.Module, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def output_on_meta(module: nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return the meta tensor that `function(*inputs)` returns while `module` is on the meta device."""
    with torch.no_grad():
        return _run(module, function, *inputs)[0]


def freeze_unreached(module: nn.Module, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Switch off `requires_grad` of the parameters of `module` that `function(*inputs)` does not depend on.

    An earlier layer, or features instead of a classifier, leaves parameters unused. They never get a gradient, and a
    distributed optimizer would wait for it.
    """
    with torch.enable_grad():
        output, weights = _run(module, function, *inputs)
    names = [name for name, weight in weights.items() if weight.requires_grad]
    grads = torch.autograd.grad(output.sum(), [weights[name] for name in names], allow_unused=True)
    parameters = dict(module.named_parameters())
    for name, grad in zip(names, grads, strict=True):
        if grad is None:
            parameters[name].requires_grad_(False)


def _run(
    module: nn.Module, function: Callable[..., Tensor], *inputs: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    weights = {
        name: torch.empty_like(p, device="meta").requires_grad_(p.requires_grad)
        for name, p in module.named_parameters()
    }
    buffers = {name: torch.empty_like(b, device="meta") for name, b in module.named_buffers()}
    swapped = {f"module.{name}": tensor for name, tensor in (weights | buffers).items()}
    was_training = [(m, m.training) for m in module.modules()]
    module.eval()  # no random layer dropping, no batch statistics
    try:
        output = functional_call(_Call(module, function), swapped, tuple(x.to("meta") for x in inputs))
    finally:
        for m, training in was_training:
            m.training = training
    return output, weights
