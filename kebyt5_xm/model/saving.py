"""Saves a `CrossModalT5` as a folder and loads it: config.json and model.safetensors, no pickles.

FOLDER/config.json        the T5's config, each modality's classes and arguments, and the settings
FOLDER/model.safetensors  every tensor once
FOLDER/draft_heads.safetensors  those of draft heads, if the model has them
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config, check_modality_names
from kebyt5_xm.model.draft_heads import FILE, PREFIX, DraftHeadsModule
from kebyt5_xm.model.draft_heads_files import about_heads, heads_of, saved_heads, tensors_under
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.origin import Origin, run_denoising
from kebyt5_xm.model.pretrained import Pretrained, RunBackbone, open_pretrained
from kebyt5_xm.model.runs.run import Run, lora_entries, model_tensors
from kebyt5_xm.model.specs import build_modalities, limit_tensor_size
from kebyt5_xm.model.t5 import check_config, saved_config, t5_config, without_weights
from kebyt5_xm.model.tensor_files import check_fit, load_tensors, write_tensors
from kebyt5_xm.trust import check_trusted, without_working_folder
from kebyt5_xm.weight_files import ABOUT, CROSS_MODAL, WEIGHTS, read_tensors

Model = TypeVar("Model", bound=CrossModalNetwork)

CONFIG_KEYS = ("backbone", "modalities", "slot_bias", "denoising", "byte_rms")
"""Keys of config.json that are arguments of CrossModalT5Config."""


def offline_spec(model: CrossModalNetwork, name: str) -> dict[str, Any]:
    """Return {encoder, adapter} of a modality, changed so that building them needs no hub and no file."""
    module = model.modality(name)
    spec = model.config.modalities.get(name)
    if spec is None:
        raise UserError(
            f"the model's config lacks the classes of modality '{name}'; give {{'encoder': {{class_path, "
            "init_args}, 'adapter': ...} under its name to CrossModalT5Config(modalities=...), or export the run"
        )
    parts = {}
    for key, part in (("encoder", module.encoder), ("adapter", module.adapter)):
        class_path, init_args = spec[key]["class_path"], spec[key].get("init_args") or {}
        if class_path.rpartition(".")[2] != type(part).__name__:
            raise UserError(
                f"the config says that the {key} of modality '{name}' is {class_path}, found a "
                f"{type(part).__name__}; correct config.modalities"
            )
        init_args = part.offline(init_args) if isinstance(part, Encoder) else init_args
        parts[key] = {"class_path": class_path, "init_args": init_args}
    return parts


def save(
    model: CrossModalNetwork,
    folder: Path,
    about: dict[str, Any] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write config.json, with `about` under its key `kebyt5_xm`, and model.safetensors.

    `state_dict` and `max_bytes` are as for `write_tensors`.
    """
    config = model.config
    content = {
        "architectures": ["CrossModalT5"],
        "model_type": config.model_type,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "backbone": saved_config(model.backbone.config),
        "modalities": {name: offline_spec(model, name) for name in model.modalities},
        "slot_bias": config.slot_bias,
        "denoising": config.denoising,
        "byte_rms": model.byte_rms(),
        ABOUT: (about or {}) | about_heads(model.draft_heads),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(model, folder / WEIGHTS, state_dict, max_bytes, without=PREFIX)
    if model.draft_heads is not None:
        own = None if state_dict is None else tensors_under(PREFIX, state_dict)
        write_tensors(model.draft_heads, folder / FILE, own)
    (folder / "config.json").write_text(text, encoding="utf-8")


def load(
    cls: type[Model], source: str, trusted_modules: Sequence[str] = (), local_files_only: bool = False
) -> Model:
    """Return the model that `source` names, of class `cls`, in eval mode on the CPU.

    `source` is a folder that `save` wrote (or one on the hub), a byte-level T5 (an export of a text-only run, or
    google/byt5-small), a run, or one checkpoint of a run. Raises `UserError`.
    """
    with without_working_folder(trusted_modules):
        opened = open_pretrained(source, local_files_only)
        if isinstance(opened, RunBackbone):
            return load_run(cls, opened.run, trusted_modules)
        if opened.content.get("model_type") == CROSS_MODAL:
            return _load_saved(cls, opened, trusted_modules)
        backbone = Backbone(weights=opened.name).build_from(opened)
        denoising = Origin.read(opened.config).denoising
        config = CrossModalT5Config(saved_config(backbone.config), denoising=denoising)
        return cls(config, backbone, draft_heads=saved_heads(opened)).eval()


def load_run(cls: type[Model], run: Run, trusted_modules: Sequence[str] = ()) -> Model:
    """Return the model of a run's chosen, best or last checkpoint, in eval mode on the CPU.

    Encoders are built as in the recipe, so pretrained weights are read from the same place as in training.
    """
    with without_working_folder(trusted_modules):
        recipe = run.config.get("model") or {}
        checkpoint = run.checkpoint()
        if (run.backbone / "config.json").is_file():
            backbone = RunBackbone(run).config
            check_config(backbone, f"'{run.backbone / 'config.json'}'")
        else:
            backbone = saved_config(Backbone(**recipe["backbone"]).config())
        config = CrossModalT5Config(
            backbone,
            {
                name: {key: modality[key] for key in ("encoder", "adapter")}
                for name, modality in (recipe.get("modalities") or {}).items()
            },
            slot_bias=recipe.get("slot_bias") or "shared",
            denoising=run_denoising(run, trusted_modules),
        )
        tensors = model_tensors(checkpoint)
        heads = heads_of(tensors, str(checkpoint))
        model = _assemble(cls, config, tensors, str(checkpoint), trusted_modules, heads)
        model.measure_byte_rms()
        patterns = [entry.pattern for entry in lora_entries(run).values()]
        for name in model.modalities:
            modality = model.modality(name)
            initial_weights = ((recipe.get("modalities") or {}).get(name) or {}).get("weights")
            names = [f"modalities.{name}.encoder.{part}" for part, _ in modality.encoder.named_modules()]
            modality.encoder_changed = initial_weights is not None or any(
                fnmatch.filter(names, p) for p in patterns
            )
        return model


def read_config(source: str) -> dict[str, Any]:
    """Return the content of config.json of a saved `CrossModalT5`. Raises `UserError` for another model's."""
    return _read_config(open_pretrained(source))


def _read_config(source: Pretrained) -> dict[str, Any]:
    missing = [key for key in CONFIG_KEYS if key not in source.content]
    if missing:
        raise UserError(
            f"config.json of '{source.name}' lacks {', '.join(missing)}; expected that of a saved CrossModalT5"
        )
    content, parts = source.content, source.content["modalities"]
    wrong = {
        "backbone": not isinstance(content["backbone"], dict),
        "modalities": not isinstance(parts, dict)
        or not all(isinstance(part, dict) for part in parts.values()),
        "slot_bias": content["slot_bias"] not in ("shared", "zero"),
        "denoising": not isinstance(content["denoising"], dict | None),
        "byte_rms": not _is_positive(content["byte_rms"]),
    }
    for key in (key for key in CONFIG_KEYS if wrong[key]):
        raise UserError(
            f"config.json of '{source.name}' says {key}: {str(content[key])[:80]!r}, unlike any saved CrossModalT5; "
            "fetch it again"
        )
    check_modality_names(parts)
    check_config(content["backbone"], f"config.json of '{source.name}'")
    return content


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _load_saved(cls: type[Model], source: Pretrained, trusted_modules: Sequence[str]) -> Model:
    content = _read_config(source)
    config = CrossModalT5Config(**{key: content[key] for key in CONFIG_KEYS})
    path = source.file(WEIGHTS)
    if path is None:
        raise source.missing_error(WEIGHTS)
    tensors = read_tensors(path)
    return _assemble(cls, config, tensors, source.name, trusted_modules, saved_heads(source))


def _assemble(
    cls: type[Model],
    config: CrossModalT5Config,
    tensors: dict[str, Tensor],
    name: str,
    trusted_modules: Sequence[str],
    draft_heads: DraftHeadsModule | None = None,
) -> Model:
    check_trusted(
        config.modalities, trusted_modules
    )  # first, so that errors about the weights do not hide it
    backbone = without_weights(t5_config(config.backbone))
    prefix = "backbone."
    check_fit(backbone, {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}, name)
    largest = max(tensor.numel() for tensor in tensors.values())
    with limit_tensor_size(largest):
        modalities = build_modalities(config.modalities, backbone.config.d_model, trusted_modules)
    backbone.to_empty(device=torch.device("cpu"))  # spends no time on random weights
    model = cls(config, backbone, modalities)
    load_tensors(model, {key: t for key, t in tensors.items() if not key.startswith(PREFIX)}, name)
    model.draft_heads = draft_heads
    return model.eval()
