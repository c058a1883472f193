"""The backbone: transformers' own T5, in one of four sizes or in the shape of the config.json of its weights."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.attention.choice import Implementation, check_dropout
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.pretrained import open_pretrained
from kebyt5_xm.model.t5 import backbone_hash, check_config, load_state, t5, t5_config, without_weights
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID, PAD_ID, VOCAB_SIZE
from kebyt5_xm.weight_files import ABOUT

if TYPE_CHECKING:
    from transformers import T5Config, T5ForConditionalGeneration

__all__ = ["SHAPES", "Backbone", "backbone_hash"]

SHAPES: dict[str, dict[str, int]] = {
    "mini": {"d_model": 1024, "d_ff": 2496, "num_heads": 8, "num_layers": 9, "num_decoder_layers": 3},
    "small": {"d_model": 1472, "d_ff": 3584, "num_heads": 6, "num_layers": 12, "num_decoder_layers": 4},
    "base": {"d_model": 1536, "d_ff": 3968, "num_heads": 12, "num_layers": 18, "num_decoder_layers": 6},
    "large": {"d_model": 1536, "d_ff": 3840, "num_heads": 16, "num_layers": 36, "num_decoder_layers": 12},
}
"""small, base and large are ByT5's (Xue et al. 2022, table 1, and the published config.json files). mini is
this project's proposal for the 124M parameters that KEByT5 states without a config."""

D_KV = 64
"""Width of an attention head in every size; heads x 64 is the inner width, not d_model."""

ARCHITECTURE: dict[str, Any] = {
    "model_type": "t5",
    "vocab_size": VOCAB_SIZE,
    "d_kv": D_KV,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "pad_token_id": PAD_ID,
    "eos_token_id": EOS_ID,
    "decoder_start_token_id": PAD_ID,
    "is_encoder_decoder": True,
}
"""Fields that all sizes share: T5 1.1 over ByT5's vocabulary (the published config.json files)."""


@dataclass
class Backbone:
    """The T5 to train and the source of its weights: `model.backbone` in a recipe.

    Args:
        size: one of `SHAPES`, trained from scratch unless `weights` is given.
        weights: initial weights: a hub id (`google/byt5-small`), a folder in the published layout, an
            export, a run (its best checkpoint, else its last) or one checkpoint of a run. The shape comes from
            its config.json; `size` and `shape`, if given too, must agree with it.
        shape: d_model, d_ff, num_heads, num_layers, num_decoder_layers and d_kv (default 64). Overrides
            entries of `size`; a complete `shape` needs no `size`.
        dropout: rate in both stacks. T5 1.1 and ByT5 were pretrained with 0; 0.1 is usual in fine-tuning.
        attention: `sdpa` is torch's kernels; `flex`, for a GPU, its FlexAttention; `triton`, for a GPU, our kernel;
            `eager` is transformers' own, which can return attention weights, and knows no packed rows.
        frozen: no parameter of the backbone trains.
        gradient_checkpointing: recompute activations in the backward pass, for less memory.

    Raises `UserError` for a combination that cannot be built.
    """

    size: Literal["mini", "small", "base", "large"] | None = None
    weights: str | None = None
    shape: dict[str, int] | None = None
    dropout: float = 0.0
    attention: Implementation = "sdpa"
    frozen: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        shape = self._requested_shape()
        missing = [key for key in SHAPES["mini"] if key not in shape]
        if self.weights is None and missing:
            raise UserError(
                "the backbone has neither `size` nor `weights`, nor a complete `shape` (it lacks "
                f"{', '.join(missing)}); give one of them"
            )
        if shape.get("num_decoder_layers", 0) > shape.get("num_layers", math.inf):
            raise UserError(  # transformers' generate makes its cache with as many layers as the encoder has
                f"the backbone has {shape['num_decoder_layers']} decoder layers over {shape['num_layers']} encoder "
                "layers, with which transformers cannot generate; expected no more than in the encoder"
            )
        if not 0 <= self.dropout < 1:
            raise UserError(f"backbone.dropout is {self.dropout}; expected a rate from 0 to below 1")
        if self.frozen and self.dropout:
            raise UserError(
                f"backbone.dropout is {self.dropout} but the backbone is frozen; set dropout to 0, or frozen "
                "to false"
            )

        check_dropout(self.attention, self.dropout)

    def _requested_shape(self) -> dict[str, int]:
        """Return the entries of `size` and `shape`."""
        if self.size is not None and self.size not in SHAPES:
            near = did_you_mean(self.size, SHAPES)
            raise UserError(f"no backbone size '{self.size}'; expected one of {', '.join(SHAPES)}{near}")
        known = [*SHAPES["mini"], "d_kv"]
        for key, value in (self.shape or {}).items():
            if key not in known:
                near = did_you_mean(key, known)
                raise UserError(f"backbone.shape has no '{key}'; expected {', '.join(known)}{near}")
            if value < 1:
                raise UserError(f"backbone.shape.{key} is {value}; expected 1 or more")
        return {**(SHAPES[self.size] if self.size else {}), **(self.shape or {})}

    def config(self, source: Pretrained | None = None) -> "T5Config":
        """Return the T5Config; of `weights`, only config.json is read. Raises `UserError`.

        `source` is the opened `weights`, if they are open already.
        """
        shape = self._requested_shape()
        fields = {**ARCHITECTURE, **shape} if self.weights is None else self._pretrained_fields(source)
        differences = [
            f"{k} {v} (in the weights: {fields.get(k)})" for k, v in shape.items() if v != fields.get(k)
        ]
        if differences:
            raise UserError(
                f"weights '{self.weights}' differ from `size` and `shape`: {', '.join(differences)}; leave `size` "
                "and `shape` out, or give other weights"
            )
        return t5_config({**fields, "dropout_rate": self.dropout})

    def _pretrained_fields(self, source: Pretrained | None) -> dict[str, Any]:
        assert self.weights is not None
        fields = (source or open_pretrained(self.weights)).config
        model, tokenizer = fields.get("model_type"), fields.get("tokenizer_class", "ByT5Tokenizer")
        if (about := fields.get(ABOUT)) and about.get("format"):
            raise UserError(
                f"'{self.weights}' was exported for CTranslate2; expected the run, or its export with --format "
                "transformers"
            )
        if model != "t5" or tokenizer != "ByT5Tokenizer":
            raise UserError(
                f"weights '{self.weights}' are of a '{model}' model with a {tokenizer}; expected those of a "
                "byte-level T5"
            )
        check_config(fields, f"config.json of weights '{self.weights}'")
        if fields.get("vocab_size", 0) < BYTE_OFFSET + 256:
            raise UserError(
                f"weights '{self.weights}' have a vocabulary of {fields.get('vocab_size')}; expected "
                f"room for the 256 bytes, as in ByT5's {VOCAB_SIZE}"
            )
        if fields.get("scale_decoder_outputs", fields.get("tie_word_embeddings", True)):
            raise UserError(
                f"config.json of weights '{self.weights}' ties the head to the embedding; expected "
                "`tie_word_embeddings: false`, as in ByT5 and T5 1.1"
            )
        return fields

    def build(self) -> "T5ForConditionalGeneration":
        """Return the model in fp32 and in training mode; random weights come from torch's global generator.

        Raises `UserError` for weights that cannot be read or do not fit.
        """
        model = self._build_from_scratch() if self.weights is None else self._build_from_weights()
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if self.frozen:
            model.requires_grad_(False)
        return model

    def _build_from_scratch(self) -> "T5ForConditionalGeneration":
        from torch import nn

        model = t5(self.config(), self.attention)
        # transformers gives an untied head std 1 and so a first loss near 110 nats; T5 1.1 itself divides the
        # variance by the fan-in (mesh TensorFlow's dense layers; transformers #26441, t5x #1477).
        nn.init.normal_(model.lm_head.weight, std=model.config.d_model**-0.5)
        return model

    def _build_from_weights(self) -> "T5ForConditionalGeneration":
        assert self.weights is not None
        return self.build_from(open_pretrained(self.weights))

    def build_from(self, source: Pretrained) -> "T5ForConditionalGeneration":
        """Return the model with the weights of `source`, the opened `weights`."""
        assert self.weights is not None
        model = without_weights(self.config(source), self.attention)
        load_state(model, source.tensors(), self.weights)
        return model
