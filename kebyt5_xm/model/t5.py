"""transformers' own T5 with a head that is never tied to the embedding: its config and its state.

transformers 5 sets `tie_word_embeddings` to true in every new T5Config. transformers 4 reads a model saved with it as
tied, with scaled outputs. So configs come from `t5_config`, models from `t5`.
"""

import hashlib
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import T5Config, T5ForConditionalGeneration

    from kebyt5_xm.model.attention.choice import Implementation

EMBEDDING_ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Other names of `shared.weight`, present in some files."""

_UNUSED_TENSOR = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""Present in files of early transformers versions; cross-attention has no relative bias."""

SAVED_FIELDS = (
    *("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads"),
    *("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"),
    *("feed_forward_proj", "dropout_rate", "initializer_factor", "use_cache"),
    *("pad_token_id", "eos_token_id", "decoder_start_token_id"),
)
"""Keys of a T5's config.json, as in the published files."""

MAX_VALUES = {"num_layers": 1024, "num_decoder_layers": 1024, "layer_norm_epsilon": 1.0, "dropout_rate": 1.0}
"""Largest accepted values of a config.json; our own choice, far above every T5 (T5 11B: d_ff 65,536)."""

MAX_SIZE = 1 << 20
"""Largest accepted value of all other sizes."""

_SIZES = SAVED_FIELDS[: SAVED_FIELDS.index("layer_norm_epsilon")]


def t5_config(fields: dict[str, Any]) -> "T5Config":
    """Return a T5Config with an untied head from the content of a config.json.

    Uses `SAVED_FIELDS` alone: not the file's origin, its dtype, or code that it names. Raises `UserError` for values
    that no T5 has.
    """
    from transformers import T5Config

    check_config(fields, "config.json")
    known = {key: fields[key] for key in SAVED_FIELDS if key in fields}
    config = T5Config.from_dict({**known, "tie_word_embeddings": False})
    config.tie_word_embeddings = False
    return config


def check_config(fields: dict[str, Any], where: str) -> None:
    """Raise `UserError` for values that no T5 has, before anything is allocated; `where` names the config.json."""
    for key in _SIZES:
        value, max_value = fields.get(key, 1), MAX_VALUES.get(key, MAX_SIZE)
        if key == "num_decoder_layers" and value is None:  # as many as the encoder's
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= max_value:
            raise UserError(
                f"{where} says {key}: {value!r:.40}; expected a whole number from 1 to {max_value}"
            )
    for key in ("layer_norm_epsilon", "dropout_rate", "initializer_factor"):
        value, max_value = fields.get(key, 0.5), MAX_VALUES.get(key, 1e6)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= max_value:
            raise UserError(f"{where} says {key}: {value!r:.40}; expected a number from 0 to {max_value}")
    for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        value, end = fields.get(key, 0), fields.get("vocab_size", MAX_SIZE)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < end:
            raise UserError(f"{where} says {key}: {value!r:.40}; expected an id below vocab_size")
    projection = fields.get("feed_forward_proj", "relu")
    if projection not in ("relu", "gelu", "gelu_new", "silu", "gated-relu", "gated-gelu", "gated-silu"):
        raise UserError(
            f"{where} says feed_forward_proj: {projection!r:.40}; expected gated-gelu, as in ByT5"
        )


def saved_config(config: "T5Config") -> dict[str, Any]:
    """Return the content of a config.json that transformers 4 and 5 both read with an untied head."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "tokenizer_class": "ByT5Tokenizer",
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        **{name: getattr(config, name) for name in SAVED_FIELDS},
    }


def t5(config: "T5Config", attention: "Implementation" = "sdpa") -> "T5ForConditionalGeneration":
    """Return a T5 in which both stacks share the embedding and the head does not, with the modules of `fuse`."""
    from transformers import T5ForConditionalGeneration

    from kebyt5_xm.model.attention.interface import use
    from kebyt5_xm.model.fused_blocks import fuse

    assert not config.tie_word_embeddings, "make the config with t5_config"
    model = T5ForConditionalGeneration(config)
    model.set_input_embeddings(model.shared)  # transformers gives each stack its own if untied
    use(model, attention)
    fuse(model)
    assert model.lm_head.weight is not model.shared.weight
    return model


def without_weights(config: "T5Config", attention: "Implementation" = "sdpa") -> "T5ForConditionalGeneration":
    """Return the T5 of `t5` on the meta device: names and shapes, no memory."""
    import torch

    with torch.device("meta"):
        return t5(config, attention)


def load_state(model: "T5ForConditionalGeneration", tensors: "dict[str, Tensor]", weights: str) -> None:
    """Replace the model's tensors by fp32 copies of a checkpoint's.

    The embedding may have any of its names. `weights` is the checkpoint's name in errors. Raises `UserError` if a
    tensor is missing, unknown or of another shape, or if the embedding's copies differ.
    """
    import torch

    tensors = _drop_aliases(tensors, weights)
    _check_fit(tensors, saved_state(model), weights)
    tensors = {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in tensors.items()}
    tensors |= dict.fromkeys(EMBEDDING_ALIASES, tensors["shared.weight"])
    model.load_state_dict(tensors, assign=True)


def saved_state(model: "T5ForConditionalGeneration") -> "dict[str, Tensor]":
    """Return the state to save: every tensor once, in order of names, the embedding as `shared.weight`.

    Raises `UserError` for a model with LoRA that is not merged.
    """
    from kebyt5_xm.model.lora import refuse_updates

    state = model.state_dict()
    refuse_updates(state)
    return {name: state[name].detach() for name in sorted(state) if name not in EMBEDDING_ALIASES}


def backbone_hash(model: "T5ForConditionalGeneration") -> str:
    """Return the SHA-256 over names, dtypes, shapes and bytes of `saved_state(model)`, in hexadecimal."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in saved_state(model).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _drop_aliases(tensors: "dict[str, Tensor]", weights: str) -> "dict[str, Tensor]":
    """Return the tensors with the embedding as `shared.weight` alone, without `_UNUSED_TENSOR`."""
    tensors = {name: tensor for name, tensor in tensors.items() if name != _UNUSED_TENSOR}
    aliases = {name: tensors.pop(name) for name in EMBEDDING_ALIASES if name in tensors}
    for name, tensor in aliases.items():
        if not tensors.setdefault("shared.weight", tensor).equal(tensor):
            raise UserError(
                f"weights '{weights}' have another embedding in {name} than in shared.weight; expected one for "
                "both stacks, as in every T5"
            )
    return tensors


def _check_fit(tensors: "dict[str, Tensor]", expected: "dict[str, Tensor]", weights: str) -> None:
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unknown" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"the tensors of weights '{weights}' do not fit their config.json: "
            f"{'; '.join(problems[:3])}{more}; expected both from one model"
        )
