"""Loading an encoder of transformers, also as part of a larger model, and cutting it at a layer."""

from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from encoders.pretrained import loading
from kebyt5_xm.errors import UserError, did_you_mean

NO_RANDOM_DROPS = {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}
"""Settings that switch off random feature masks and layer drops, which would give ranks unequal graphs."""

DERIVED = ("stage_names", "out_features", "out_indices")
"""Keys that some configs compute from other keys and check; an override would make them disagree."""


def load_encoder(name: str, pretrained: bool, overrides: dict[str, Any]) -> tuple[Any, set[str]]:
    """Return the encoder and the names of its tensors that are missing in the checkpoint."""
    config = _config(name, pretrained, overrides)
    missing: set[str] = set()
    if pretrained:
        with loading(name):
            model, info = AutoModel.from_pretrained(
                name, config=config, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
            )
        missing = set(info["missing_keys"])
    else:
        if hasattr(config, "decoder_layers"):
            config.decoder_layers = 0  # never used here
        model = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    if config.is_encoder_decoder:
        model = model.get_encoder()
        missing = {key.removeprefix("encoder.") for key in missing if key.startswith("encoder.")}
    return model, missing


def _config(name: str, pretrained: bool, overrides: dict[str, Any]) -> Any:
    if not pretrained and name in CONFIG_MAPPING:
        config = AutoConfig.for_model(name)
    else:
        with loading(name):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    config = getattr(config, "vision_config", None) or config  # the image part of an image-text model
    unknown = [key for key in overrides if not hasattr(config, key)]
    if unknown:
        raise UserError(
            f"found '{unknown[0]}' in config, which {type(config).__name__} does not have"
            f"{did_you_mean(unknown[0], config.to_dict())}"
        )
    fixed = {key: value for key, value in NO_RANDOM_DROPS.items() if hasattr(config, key)}
    settings = {key: value for key, value in config.to_dict().items() if key not in DERIVED}
    try:
        return type(config)(**{**settings, **fixed, **overrides})
    except Exception as error:
        cause = " ".join(str(error).split())
        raise UserError(
            f"found a config that {type(config).__name__} does not accept ({cause}); correct it"
        ) from error


def keep_layers(model: Any, layer: int | None, name: str) -> nn.Module | None:
    """Drop the layers after `layer` and return that layer, or None for the model's last hidden state."""
    if layer is None:
        return None
    count = getattr(model.config, "num_hidden_layers", None)
    stacks = [
        (path, stack)
        for path, stack in model.named_modules()
        if isinstance(stack, nn.ModuleList)
        and len(stack) == count
        and path.split(".")[-1] in ("layers", "layer")
    ]
    if count is None or len(stacks) != 1:
        raise UserError(
            f"found layer: {layer} for '{name}', which has no single stack of layers; remove layer"
        )
    if not -count <= layer < count:
        raise UserError(
            f"found layer: {layer} for '{name}', expected {-count} to {count - 1}: it has {count} layers"
        )
    path, stack = stacks[0]
    model.set_submodule(path, stack[: layer % count + 1])
    return model.get_submodule(f"{path}.{layer % count}")
