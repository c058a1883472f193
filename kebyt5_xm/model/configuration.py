"""The configuration of a `CrossModalT5`: the content of its config.json."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import nn
from transformers import PreTrainedConfig

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.t5 import check_config, t5_config
from kebyt5_xm.weight_files import ABOUT, CROSS_MODAL

SlotBias = Literal["shared", "zero"]

CONFIG_KEYS = ("backbone", "modalities", "slot_bias", "denoising", "byte_rms")
"""Keys of config.json that are arguments of CrossModalT5Config."""

GATE = "delete_gate"
"""Its key, which is there if the model has a delete gate."""


def check_modality_names(names: Iterable[str]) -> None:
    """Raise `UserError` for a name that cannot be a modality's.

    The name is a part of tensor names, which dots separate, and of paths, where a third-party name could lead out of
    the folder.
    """
    for name in names:
        if not re.fullmatch(r"[\w-]+", name):
            raise UserError(
                f"found the modality '{name}', expected a name of letters, digits, _ and - alone, such as 'image'"
            )
        if hasattr(nn.ModuleDict, name) or name == "training":
            raise UserError(
                f"found the modality '{name}', a name that torch reserves in a model; choose another name, "
                f"such as '{name}_1'"
            )


def check_fields(content: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` for values that no saved CrossModalT5 has; `where` names the config.json."""
    missing = [key for key in CONFIG_KEYS if key not in content]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}; expected that of a saved CrossModalT5")
    parts = content["modalities"]
    wrong = {
        "backbone": not isinstance(content["backbone"], dict),
        "modalities": not isinstance(parts, dict)
        or not all(isinstance(part, dict) for part in parts.values()),
        "slot_bias": content["slot_bias"] not in get_args(SlotBias),
        "denoising": not isinstance(content["denoising"], dict | None),
        "byte_rms": not _is_positive(content["byte_rms"]),
    }
    for key in (key for key in CONFIG_KEYS if wrong[key]):
        raise UserError(
            f"{where} says {key}: {str(content[key])[:80]!r}, unlike any saved CrossModalT5; fetch it again"
        )
    check_modality_names(parts)
    check_config(content["backbone"], where)
    _check_gate(content, where)


def _check_gate(content: Mapping[str, Any], where: str) -> None:
    gate = content.get(GATE)
    if gate is None:
        return
    layer = gate.get("layer") if isinstance(gate, dict) else None
    num_layers = content["backbone"].get("num_layers", 0)
    if isinstance(layer, bool) or not isinstance(layer, int) or not 1 <= layer < num_layers:
        raise UserError(
            f"{where} says {GATE}: {str(gate)[:80]!r}; expected a layer from 1 to below num_layers, {num_layers}"
        )


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


class CrossModalT5Config(PreTrainedConfig):
    """Configuration of a `CrossModalT5`.

    Args:
        backbone: the fields of the T5Config.
        modalities: name -> {encoder, adapter}, each {class_path, init_args}, as in a recipe.
        slot_bias: relative position bias of slots, `shared` with text or `zero`.
        denoising: the settings of span denoising that the backbone was trained with, including its sentinels.
        byte_rms: root mean square of the byte embeddings; the scale of slot vectors is measured against it.
        delete_gate: {layer: encoder layers before the gate}, None without a gate (`kebyt5_xm.model.delete_gate`).

    `kebyt5_xm` has the origin of the weights, as an export records it: `started_from`, `licence` and more.
    """

    model_type = CROSS_MODAL

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        modalities: dict[str, dict[str, Any]] | None = None,
        slot_bias: SlotBias = "shared",
        denoising: dict[str, Any] | None = None,
        byte_rms: float = 1.0,
        delete_gate: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.modalities = modalities or {}
        self.slot_bias = slot_bias
        self.denoising = denoising or {}
        self.byte_rms = byte_rms
        self.delete_gate = delete_gate
        about = kwargs.pop(ABOUT, None)
        self.kebyt5_xm: dict[str, Any] = about if isinstance(about, dict) else {}
        kwargs = {"is_encoder_decoder": True, "pad_token_id": 0, "eos_token_id": 1, **kwargs}
        super().__init__(**{"decoder_start_token_id": 0, "tie_word_embeddings": False, **kwargs})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return the configuration in the content of a config.json, as transformers does.

        A key that is absent has its default. Raises `UserError` for values that no saved model has.
        """
        check_fields({**{key: getattr(cls(), key) for key in CONFIG_KEYS}, **config_dict}, "config.json")
        for key in ("dtype", "torch_dtype"):
            value = config_dict.get(key)
            if isinstance(value, str) and not isinstance(getattr(torch, value, None), torch.dtype):
                raise UserError(f"config.json says {key}: {value!r:.40}; expected a dtype such as float32")
        return super().from_dict(config_dict, **kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """Return the T5's config, from which `generate` reads the number of layers to cache and the vocabulary."""
        return t5_config(self.backbone)
