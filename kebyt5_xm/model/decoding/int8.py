"""An int8 decoder: weights in 8 bits with a scale for each output, inputs quantised anew in each product. CPU only.

Keys and values of the encoder's states and the head stay in fp32: the first are computed once for an answer, the
second is small, and both decide the ids.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.weights import DecoderWeights, read_weights
from kebyt5_xm.model.network import CrossModalNetwork


class Int8Matrix:
    """A `Matrix` of matrices [out, in] of one input, quantised symmetrically for each output."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        weight = torch.cat(list(parts)).float()
        scales = weight.abs().amax(1).double().clamp_(min=torch.finfo(torch.float32).tiny) / 127
        zeros = torch.zeros(len(weight), dtype=torch.long)
        quantized = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self._packed = torch.ops.quantized.linear_prepack(quantized, None)
        # 7 bits for inputs: x86 adds two products in 16 bits before AVX512-VNNI. QNNPACK has no such choice.
        self._reduce_range = torch.backends.quantized.engine != "qnnpack"

    def _product(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed, reduce_range=self._reduce_range)

    def multiply(self, x: Tensor, out: Tensor) -> None:
        out.copy_(self._product(x))

    def add_product(self, x: Tensor, total: Tensor) -> None:
        total.add_(self._product(x))


class Int8Decoder(nn.Module):
    """Takes the place of a backbone's decoder; `weights` are what a `FastDecoder` computes with.

    It has no parameters, and raises `UserError` when it is trained, saved, exported, moved or called by transformers.
    """

    def __init__(self, weights: DecoderWeights) -> None:
        super().__init__()
        self.weights = weights
        self.training = False

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UserError(
            "found a call of an int8 decoder by transformers or a training step, expected answer() or classify() "
            "with arguments that are decoded here (kebyt5_xm.model.decoding.arguments.DEFAULTS); else load the model "
            "with dtype='float32'"
        )

    def train(self, mode: bool = True) -> "Int8Decoder":
        if mode:
            self._refuse("trained", "train the model that it was made from")
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("saved or exported", "load the model with dtype='float32' and save that")

    def load_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse("given other weights", "load the model with dtype='int8' from those")

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.load_state_dict()

    def _apply(self, fn: Any, recurse: bool = True) -> "Int8Decoder":
        moved = fn(torch.zeros(1))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            self._refuse(
                f"moved to {moved.device} as {moved.dtype}", "load the model with dtype='bfloat16' there"
            )
        return self

    def _refuse(self, what: str, remedy: str) -> NoReturn:
        raise UserError(f"found an int8 decoder, which cannot be {what}; {remedy}")


def quantize_decoder(model: CrossModalNetwork) -> None:
    """Replace the decoder of a model on the CPU by an `Int8Decoder`, and make all other weights fp32.

    Raises `UserError` if the model is elsewhere, if the CPU has no int8 products, or if the decoder's weights cannot
    be read.
    """
    device = model.backbone.shared.weight.device
    if device.type != "cpu":
        raise UserError(
            f"found a model on '{device}', expected one on the CPU for int8; on a GPU use dtype='bfloat16'"
        )
    if torch.backends.quantized.engine == "none":
        raise UserError("int8 needs a torch with FBGEMM, oneDNN or QNNPACK; use dtype='float32'")
    model.float()
    model.eval()
    weights = read_weights(model.backbone, Int8Matrix)
    if weights is None:
        raise UserError(
            "found a decoder with sharded weights or replaced modules, expected a plain T5 decoder for int8; load "
            "the model with from_pretrained(..., dtype='int8')"
        )
    model.backbone.decoder = Int8Decoder(weights)  # pyright: ignore[reportAttributeAccessIssue]
