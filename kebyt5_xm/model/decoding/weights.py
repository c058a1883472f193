"""The weights of a T5 decoder, arranged for inference: products of one input in one matrix, nothing else changed.

They are read anew for each decoding session, so they are never those of an earlier training step. Small matrices of
one input are copied into one, which saves calls; the parts of a large one stay where they are, since their reading
takes the time.

Letters in shapes: M rows of a product, D the model's width, I = heads x width of a head, F the inner width of the
feed-forward layer, V the vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration
from transformers.models.t5 import modeling_t5

from kebyt5_xm.model.attention.interface import PatternAttention
from kebyt5_xm.model.attention.pattern import bias_table

MAX_FUSED = 1 << 20
"""Elements of the largest matrix that is copied; a call takes about 5 us, reading 4 MB 200 us (2 CPU cores)."""

MIN_SPLIT = 1 << 18
"""Elements of the smallest matrix that is worth splitting (docs/performance.md)."""

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": torch.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}
"""By transformers' names of a config's `dense_act_fn`."""


class Matrix(Protocol):
    """The matrix of a linear layer without bias."""

    def multiply(self, x: Tensor, out: Tensor) -> None:
        """Write the product of x [M, in] into `out` [M, out]."""
        ...

    def add_product(self, x: Tensor, total: Tensor) -> None:
        """Add the product of x [M, in] to `total` [M, out]."""
        ...


class DenseMatrix:
    """One or several matrices [out, in] of one input; their products stand side by side.

    On a CPU, the product of one row with a large matrix is computed as a batch of one part for each thread, since the
    libraries below PyTorch compute it in one thread.
    """

    def __init__(self, parts: Sequence[Tensor], gain: Tensor | None = None) -> None:
        if len(parts) > 1 and sum(part.numel() for part in parts) <= MAX_FUSED:
            fused = torch.cat(list(parts))
            parts = [fused if gain is None else fused.mul_(gain)]
        elif gain is not None:
            parts = [part * gain for part in parts]
        self._parts, end = [], 0
        for part in parts:
            begin, end = end, end + len(part)
            self._parts.append((part.t(), _split(part), begin, end))

    def multiply(self, x: Tensor, out: Tensor) -> None:
        for part, split, begin, end in self._parts:
            columns = out if len(self._parts) == 1 else out[:, begin:end]
            if split is None or len(x) > 1:
                torch.mm(x, part, out=columns)
            else:
                torch.bmm(x.expand(len(split), 1, -1), split, out=columns.view(len(split), 1, -1))

    def add_product(self, x: Tensor, total: Tensor) -> None:
        ((part, split, _, _),) = self._parts
        if total.dtype != x.dtype:
            total.add_(torch.mm(x, part))
        elif split is None or len(x) > 1:
            total.addmm_(x, part)
        else:
            total.view(len(split), 1, -1).baddbmm_(x.expand(len(split), 1, -1), split)


def _split(matrix: Tensor) -> Tensor | None:
    """Return a matrix [out, in] in parts, [threads, in, out / threads]; None if that does not pay."""
    threads = torch.get_num_threads()
    is_large = matrix.device.type == "cpu" and matrix.numel() >= MIN_SPLIT
    if threads == 1 or not is_large or matrix.dtype != torch.float32 or len(matrix) % threads:
        return None
    return matrix.view(threads, -1, matrix.shape[1]).transpose(1, 2)


@dataclass(frozen=True)
class Norm:
    """T5's norm, a division by the root mean square. `gain` [D] fp32 is None if the next matrix contains it.

    The division is by the norm of the vector, so the gain includes the square root of D.
    """

    gain: Tensor | None


@dataclass(frozen=True)
class LayerWeights:
    """One decoder block. `qkv` [3 I, D]; `wi` [F, D], or [2 F, D] if gated."""

    self_norm: Norm
    qkv: Matrix
    self_out: Matrix
    cross_norm: Norm
    cross_q: Matrix
    cross_kv: Matrix
    cross_out: Matrix
    ff_norm: Norm
    wi: Matrix
    wo: Matrix


@dataclass(frozen=True)
class DecoderWeights:
    """A whole decoder and its head.

    `embedding` [V, D]; `bias` [distance, H] fp32 or bf16 gives the relative bias of keys at distances from 0 to the
    first whose bucket is the last; `dtype` is that of the matrices. `head_gain` [D] fp32 is what the head's matrix
    contains of the final norm, None if nothing.
    """

    layers: list[LayerWeights]
    embedding: Tensor
    bias: Tensor
    final_norm: Norm
    head: Matrix
    head_gain: Tensor | None
    num_heads: int
    d_kv: int
    d_ff: int
    epsilon: float
    gated: bool
    activation: Activation
    dtype: torch.dtype

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.embedding)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.embedding.device


class _Unreadable(Exception):
    """Raised for a decoder that only module calls compute."""


@torch.no_grad()
def read_weights(
    backbone: T5ForConditionalGeneration, quantize: Callable[[Sequence[Tensor]], Matrix] | None = None
) -> DecoderWeights | None:
    """Return the weights of a backbone's decoder in the dtype in which it computes.

    None if only module calls compute it: if weights are sharded or elsewhere, if modules are wrapped or replaced, or
    if dropout acts. `quantize` makes the matrices that every step reads, except the head.
    """
    try:
        return _Reader(backbone, quantize).read()
    except _Unreadable:
        return None


class _Reader:
    """Reads one backbone; raises `_Unreadable`."""

    def __init__(
        self, backbone: T5ForConditionalGeneration, quantize: Callable[[Sequence[Tensor]], Matrix] | None
    ) -> None:
        self.backbone = backbone
        self.make = quantize or DenseMatrix
        self.config = backbone.config
        decoder: Any = backbone.decoder
        modules: list[nn.Module] = [*decoder.modules(), backbone.lm_head, backbone.shared, backbone]
        for module in modules:
            _check(not isinstance(module, FSDPModule))
            _check(not (isinstance(module, nn.Dropout) and module.training and module.p > 0))
        parameters = [p for module in modules for p in module._parameters.values() if p is not None]
        for parameter in parameters:
            _check(type(parameter) in (nn.Parameter, Tensor) and not hasattr(parameter, "ds_id"))
            _check(not isinstance(parameter, DTensor) and parameter.untyped_storage().nbytes() > 0)
            _check(not parameter.is_meta and parameter.device == parameters[0].device)
        dtypes = {parameter.dtype for parameter in parameters}
        _check(len(dtypes) == 1 and dtypes <= {torch.float32, torch.bfloat16})
        self.dtype = dtypes.pop()
        kind = parameters[0].device.type
        if self.dtype == torch.float32 and torch.is_autocast_enabled(kind):
            self.dtype = torch.get_autocast_dtype(kind)
            _check(self.dtype == torch.bfloat16)

    def read(self) -> DecoderWeights:
        decoder: Any = self.backbone.decoder
        _check(type(decoder) is modeling_t5.T5Stack and decoder.embed_tokens is self.backbone.shared)
        _check(self.config.dense_act_fn in ACTIVATIONS)
        blocks: list[Any] = list(decoder.block)
        layers = [self._layer(block) for block in blocks]
        final_norm, head = self._normed(decoder.final_layer_norm, [self.backbone.lm_head], DenseMatrix)
        gain = None if final_norm.gain is not None else self._gain(decoder.final_layer_norm)
        return DecoderWeights(
            layers=layers,
            embedding=self.backbone.shared.weight.detach(),
            bias=self._bias(blocks[0].layer[0].SelfAttention).to(self.dtype),
            final_norm=final_norm,
            head=head,
            head_gain=gain,
            num_heads=self.config.num_heads,
            d_kv=self.config.d_kv,
            d_ff=self.config.d_ff,
            epsilon=self.config.layer_norm_epsilon,
            gated=self.config.is_gated_act,
            activation=ACTIVATIONS[self.config.dense_act_fn],
            dtype=self.dtype,
        )

    def _layer(self, block: Any) -> LayerWeights:
        _check(type(block) is modeling_t5.T5Block and len(block.layer) == 3)
        first, second, third = block.layer
        _check(type(first) is modeling_t5.T5LayerSelfAttention)
        _check(type(second) is modeling_t5.T5LayerCrossAttention and type(third) is modeling_t5.T5LayerFF)
        own: Any = first.SelfAttention
        cross: Any = second.EncDecAttention
        dense: Any = third.DenseReluDense
        _check(type(own) is type(cross) is PatternAttention)
        gated = self.config.is_gated_act
        expected = modeling_t5.T5DenseGatedActDense if gated else modeling_t5.T5DenseActDense
        _check(type(dense) is expected)
        self_norm, qkv = self._normed(first.layer_norm, [own.q, own.k, own.v])
        cross_norm, cross_q = self._normed(second.layer_norm, [cross.q])
        ff_norm, wi = self._normed(third.layer_norm, [dense.wi_0, dense.wi_1] if gated else [dense.wi])
        return LayerWeights(
            self_norm=self_norm,
            qkv=qkv,
            self_out=self._matrix([own.o]),
            cross_norm=cross_norm,
            cross_q=cross_q,
            cross_kv=DenseMatrix(self._weights([cross.k, cross.v])),
            cross_out=self._matrix([cross.o]),
            ff_norm=ff_norm,
            wi=wi,
            wo=self._matrix([dense.wo]),
        )

    def _normed(
        self, norm: Any, linears: Sequence[Any], make: Callable[[Sequence[Tensor]], Matrix] | None = None
    ) -> tuple[Norm, Matrix]:
        """Return a norm and the matrices behind it; small dense fp32 matrices are copied and take the gain."""
        _check(isinstance(norm, modeling_t5.T5LayerNorm) and hasattr(norm, "variance_epsilon"))
        gain = self._gain(norm)
        weights, make = self._weights(linears), make or self.make
        small = sum(weight.numel() for weight in weights) <= MAX_FUSED
        if make is DenseMatrix and self.dtype == torch.float32 and small:
            return Norm(None), DenseMatrix(weights, gain)
        return Norm(gain), make(weights)

    def _gain(self, norm: Any) -> Tensor:
        return norm.weight.detach().float() * self.config.d_model**0.5

    def _matrix(self, linears: Sequence[Any]) -> Matrix:
        return self.make(self._weights(linears))

    def _weights(self, linears: Sequence[Any]) -> list[Tensor]:
        return [_weight(linear).to(self.dtype) for linear in linears]

    def _bias(self, attention: Any) -> Tensor:
        """Return the relative bias [distance, H] at distances from 0 to the first in the last bucket."""
        _check(attention.has_relative_attention_bias)
        table = bias_table(attention).detach()  # [H, 2M + 1]
        return table[:, : table.shape[1] // 2 + 1].flip(1).t()


def _weight(linear: Any) -> Tensor:
    """Return the weight [out, in] of a Linear layer, with its LoRA update if it has one."""
    if hasattr(linear, "merged_weight"):
        weight = linear.merged_weight()
    else:
        _check(type(linear) is nn.Linear)
        weight = linear.weight
    _check(linear.bias is None)
    return weight.detach()


def _check(condition: bool) -> None:
    if not condition:
        raise _Unreadable
