"""Saves and loads one adapter as a folder, bound to the backbone that it was trained on.

FOLDER/adapter.json          classes and arguments, widths, hash of the backbone
FOLDER/adapter.safetensors   the adapter's tensors
FOLDER/encoder.safetensors   the encoder's tensors, left out if they are those of its library (frozen, pretrained)
FOLDER/digests.json          the digest of both, which loading checks
"""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.backbone import backbone_hash
from kebyt5_xm.model.configuration import SlotBias
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.saving import offline_spec
from kebyt5_xm.model.tensor_files import load_tensors, write_tensors
from kebyt5_xm.weight_files import DIGESTS, check_digest, read_digests, read_tensors, write_digests


def save_adapter(model: CrossModalNetwork, name: str, folder: str | Path) -> None:
    """Write the adapter of modality `name` into `folder`, and its encoder unless it has its library's weights."""
    module, folder = model.modality(name), Path(folder)
    content = {
        "modality": name,
        **offline_spec(model, name),
        "in_dim": module.adapter.in_dim,
        "d_model": module.adapter.d_model,
        "slot_bias": model.config.slot_bias,
        "backbone_hash": backbone_hash(model.backbone),
        "backbone_dtype": str(model.backbone.dtype).removeprefix("torch."),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(module.adapter, folder / "adapter.safetensors")
    if module.encoder_changed or not module.encoder.keeps_initial_weights:
        write_tensors(module.encoder, folder / "encoder.safetensors")
    write_digests(folder)
    (folder / "adapter.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: CrossModalNetwork, name: str, folder: str | Path) -> None:
    """Load what `save_adapter` wrote into modality `name` of a model with the same backbone.

    Raises `UserError`, with both hashes, if the backbone differs: the adapter's vectors would be meaningless to it,
    and nothing else would fail. Also for another class, width or shape.
    """
    module, folder = model.modality(name), Path(folder)
    content = read_content(folder)
    for key, part in (("encoder", module.encoder), ("adapter", module.adapter)):
        if key == "encoder" and not (folder / "encoder.safetensors").is_file():
            continue
        class_path = content[key]["class_path"]
        if class_path.rpartition(".")[2] != type(part).__name__:
            raise UserError(
                f"the {key} in '{folder}' is a {class_path}, modality '{name}' has a {type(part).__name__}; give the "
                "modality the same class and arguments, or leave its weights out"
            )
    widths, expected = (
        (content["in_dim"], content["d_model"]),
        (module.adapter.in_dim, module.adapter.d_model),
    )
    if widths != expected:
        raise UserError(
            f"the adapter in '{folder}' maps {widths[0]} to {widths[1]}, that of modality '{name}' {expected[0]} to "
            f"{expected[1]}; give the encoder and the backbone it was trained with"
        )
    slot_bias = content.get("slot_bias", model.config.slot_bias)
    if slot_bias != model.config.slot_bias:
        raise UserError(
            f"the adapter in '{folder}' was trained with model.slot_bias '{slot_bias}', this model has "
            f"'{model.config.slot_bias}'; set it to the adapter's"
        )
    actual_hash = _hash_in(model.backbone, getattr(torch, content["backbone_dtype"]))
    if actual_hash != content["backbone_hash"]:
        raise UserError(
            f"the adapter in '{folder}' was trained on the backbone {content['backbone_hash']}, modality '{name}' "
            f"would use it on {actual_hash}; start from the adapter's backbone (model.backbone.weights), or leave "
            "the modality's weights out"
        )
    digests = read_digests(folder / DIGESTS if (folder / DIGESTS).is_file() else None)
    files: list[tuple[str, nn.Module]] = [("adapter", module.adapter), ("encoder", module.encoder)]
    for file, part in files:
        path = folder / f"{file}.safetensors"
        if path.is_file():
            check_digest(path, digests)
            dtype = next((p.dtype for p in part.parameters()), torch.float32)
            load_tensors(part, read_tensors(path), str(path))
            part.to(dtype)
            module.encoder_changed |= part is module.encoder
        elif file == "adapter":
            raise UserError(f"'{folder}' holds no adapter.safetensors; it is incomplete")


def read_content(folder: Path) -> dict[str, Any]:
    """Return the content of adapter.json; raise `UserError` if `folder` is not an adapter's folder."""
    path = folder / "adapter.json"
    if not path.is_file():
        names = [p.parent.name for p in folder.glob("adapters/*/adapter.json")]
        near = did_you_mean(folder.name, [p.parent.name for p in folder.parent.glob("*/adapter.json")])
        remedy = near or "; expected EXPORT/adapters/NAME, as `kebyt5-xm export` writes it"
        if names:
            remedy = f"; expected one of its folders adapters/{{{','.join(sorted(names))}}}"
        raise UserError(f"'{folder}' holds no adapter.json, so it is not an adapter's folder{remedy}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also for bytes that are not UTF-8
        raise UserError(f"'{path}' is not JSON ({error}); it may be incomplete: fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"'{path}' holds a {type(content).__name__}, expected a mapping; fetch it again")
    keys = ("modality", "encoder", "adapter", "in_dim", "d_model", "backbone_hash", "backbone_dtype")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"'{path}' lacks {', '.join(missing)}; it may be incomplete")
    if not isinstance(getattr(torch, str(content["backbone_dtype"]), None), torch.dtype):
        raise UserError(
            f"'{path}' says backbone_dtype '{content['backbone_dtype']}', expected a dtype such as float32; restore "
            "the file that the export wrote"
        )
    if content.get("slot_bias", "shared") not in get_args(SlotBias):
        raise UserError(
            f"'{path}' says slot_bias '{content['slot_bias']}', expected {' or '.join(get_args(SlotBias))}; "
            "restore the file that the export wrote"
        )
    return content


def _hash_in(backbone: Any, dtype: torch.dtype) -> str:
    """Return the hash of the backbone in `dtype`: training turns a bfloat16 export into float32."""
    return backbone_hash(backbone if backbone.dtype == dtype else copy.deepcopy(backbone).to(dtype))
