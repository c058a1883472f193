"""peft's LoRA layer over a Linear layer whose keys stay the same; injects it into a model and merges it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.lora import ADAPTER_NAME, LoRA

try:
    from peft import LoraConfig
    from peft.tuners import lora
except ImportError as error:
    raise UserError(
        f"model.lora needs peft, which cannot be imported ({error}); install it with `pip install "
        "'kebyt5-xm[finetune]'`"
    ) from error


class LoRALinear(lora.Linear):
    """A Linear layer with LoRA: y = W x + b + B A dropout(x) alpha / rank.

    peft holds the adapted layer as a child `base_layer`, and that name enters the keys. Here W and b stay this
    module's `weight` and `bias`, so checkpoints, optimizer groups and sharding see the keys of the plain layer, and
    `lora_A.default.weight` and `lora_B.default.weight` in addition.
    """

    def __init__(self, linear: nn.Linear, entry: LoRA) -> None:
        config = LoraConfig(r=entry.rank, lora_alpha=entry.alpha, lora_dropout=entry.dropout)
        super().__init__(linear, ADAPTER_NAME, config, r=entry.rank, lora_alpha=entry.alpha)
        del self._modules["base_layer"]
        self._parameters["weight"] = linear._parameters["weight"]
        self._parameters["bias"] = linear.bias
        self.train(linear.training)

    @property
    def base_layer(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The adapted layer, which peft calls and whose weight it reads."""
        return self._modules.get("base_layer") or _PlainLayer(self)

    def merged_weight(self) -> Tensor:
        """Return the weight [out, in] that the layer acts with, the update added unless it is merged already."""
        weight = self._parameters["weight"]
        assert weight is not None
        if self.merged or self.disable_adapters:
            return weight
        return weight + self.get_delta_weight(ADAPTER_NAME)


class _PlainLayer:
    """The plain layer of a `LoRALinear`. It reads the owner's parameters at each use: sharding replaces them."""

    def __init__(self, owner: LoRALinear) -> None:
        self._owner = owner

    @property
    def weight(self) -> Any:
        return self._owner._parameters["weight"]

    @property
    def bias(self) -> Any:
        return self._owner._parameters["bias"]

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


def inject(model: nn.Module, places: dict[str, LoRA]) -> None:
    """Add LoRA to each named Linear layer of the model; B starts at zero, so the model's outputs stay the same."""
    for name, entry in places.items():
        parent_name, _, child = name.rpartition(".")
        parent, linear = model.get_submodule(parent_name), model.get_submodule(name)
        assert isinstance(linear, nn.Linear), f"{name} is a {type(linear).__name__}; is LoRA in it already?"
        setattr(parent, child, LoRALinear(linear, entry))


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every LoRA of the model to its weights, and replace its layers by plain Linear layers."""
    for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, LoRALinear)]:
        layer.merge()
        bias = layer._parameters["bias"]
        weight = layer._parameters["weight"]
        assert weight is not None
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        linear._parameters["weight"], linear._parameters["bias"] = weight, bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, linear.train(layer.training))
