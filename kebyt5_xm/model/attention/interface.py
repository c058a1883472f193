"""Connects our attention to transformers' T5 without changing its weights: `use` gives a T5 an implementation.

A forward pass of a stack with the keyword `patterns` uses the implementation. Without it, as in transformers'
`generate`, masks and bias are transformers' own, and `scaled_dot_product_attention` computes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, T5ForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.models.t5.modeling_t5 import T5Attention

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.attention import flex, sdpa, triton_kernel
from kebyt5_xm.model.attention.choice import Implementation
from kebyt5_xm.model.attention.pattern import Pattern, bias_table

_PREFIX = "kebyt5_xm_"


@dataclass(frozen=True)
class Patterns:
    """The patterns of one stack: of its self-attention and, in a decoder, of its attention to the encoder."""

    own: Pattern
    cross: Pattern | None = None


class PatternAttention(T5Attention):
    """T5's attention, whose bias stays a table if the stack is called with `patterns`."""

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        key_value_states: Tensor | None = None,
        position_bias: Tensor | None = None,
        past_key_values: Any = None,
        patterns: Patterns | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, None]:
        """Return the output [B, T, D] and what the next layer gets as `position_bias`."""
        if patterns is not None:
            is_cross = key_value_states is not None
            kwargs["pattern"] = patterns.cross if is_cross else patterns.own
            if position_bias is None:  # the first layer; the others get its result
                position_bias = (
                    hidden_states.new_empty(0) if is_cross else self._bias(hidden_states, patterns.own)
                )
        return super().forward(
            hidden_states, mask, key_value_states, position_bias, past_key_values, **kwargs
        )

    def _bias(self, hidden_states: Tensor, pattern: Pattern) -> Tensor:
        """Return the stack's bias in the form that its implementation takes."""
        table = bias_table(self)
        kind = hidden_states.device.type
        has_positions = pattern.query_positions is not None
        if implementation(self) != "sdpa" or kind == "cpu" or has_positions:
            return table
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_states.dtype
        return sdpa.spread_bias(table, hidden_states.shape[1], dtype)


def use(backbone: T5ForConditionalGeneration, name: Implementation) -> None:
    """Make `backbone` use an implementation; its weights and their names do not change."""
    for module in backbone.modules():
        if type(module) is T5Attention:
            module.__class__ = PatternAttention
    for config in (backbone.config, backbone.encoder.config, backbone.decoder.config):
        config._attn_implementation = "eager" if name == "eager" else _PREFIX + name


def implementation(module: nn.Module) -> Implementation:
    """Return the implementation of a stack or of one of its attentions."""
    name = str(module.config._attn_implementation).removeprefix(_PREFIX)  # pyright: ignore
    assert name in get_args(Implementation), name
    return name  # pyright: ignore[reportReturnType]


def takes_patterns(backbone: T5ForConditionalGeneration) -> bool:
    """Return whether the stacks of `backbone` take `patterns`."""
    return implementation(backbone) != "eager"


def check_device(
    name: Implementation, device: torch.device, dtype: torch.dtype, head_width: int, trains: bool
) -> None:
    """Raise `UserError` if an implementation cannot run on a device, or train there although it `trains`."""
    if name == "flex":
        flex.check(device, dtype, head_width, trains)
    elif name == "triton":
        triton_kernel.check(device, dtype, head_width)


def refuse_eager(backbone: T5ForConditionalGeneration, needs: str) -> None:
    """Raise `UserError` if `backbone` cannot apply patterns, which `needs` names the use of."""
    if not takes_patterns(backbone):
        raise UserError(
            f"{needs} needs masks that eager attention does not apply; set model.backbone.attention: sdpa"
        )


def _attend(
    compute: Callable[..., Tensor],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    pattern: Pattern | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return T5's attention [B, T, H, d], as transformers asks for it with queries, keys and values [B, H, L, d]."""
    if pattern is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, position_bias=position_bias, **kwargs
        )
    bias = None if position_bias is None or not position_bias.numel() else position_bias
    arguments = (dropout,) if compute is sdpa.attention else ()
    output = compute(query, key, value, bias, pattern, *arguments)
    return output.transpose(1, 2).contiguous(), None


for _name, _module in {"sdpa": sdpa, "flex": flex, "triton": triton_kernel}.items():
    AttentionInterface.register(_PREFIX + _name, partial(_attend, _module.attention))
    AttentionMaskInterface.register(_PREFIX + _name, sdpa_mask)
