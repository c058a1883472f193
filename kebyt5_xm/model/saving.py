"""A `CrossModalT5` as a folder, and back: config.json and model.safetensors, nothing that runs code.

FOLDER/config.json        the T5's config, each modality's classes and arguments, and the settings
FOLDER/model.safetensors  every tensor once
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.durable import durably
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.bounded import at_most
from kebyt5_xm.model.configuration import check_modality_names
from kebyt5_xm.model.finite import refuse_not_finite
from kebyt5_xm.model.lora import refuse_updates
from kebyt5_xm.model.origin import Origin
from kebyt5_xm.model.pretrained import Pretrained, RunBackbone, open_pretrained
from kebyt5_xm.model.runs.run import Run, lora_entries, model_tensors
from kebyt5_xm.model.specs import build
from kebyt5_xm.model.t5 import refuse_absurd, saved_config, t5_config, without_weights
from kebyt5_xm.model.weight_files import ABOUT, CROSS_MODAL, WEIGHTS, read_tensors, write_file
from kebyt5_xm.trust import held_to_trust, somebody_elses

if TYPE_CHECKING:
    from kebyt5_xm.model.configuration import CrossModalT5Config
    from kebyt5_xm.model.cross_modal import CrossModalT5

SAVED = ("backbone", "modalities", "slot_bias", "denoising", "byte_rms")
"""The keys of config.json that make a CrossModalT5Config."""

Parts = tuple[Encoder, Adapter]


def build_modalities(
    specs: dict[str, dict[str, Any]], d_model: int, trusted_modules: Sequence[str] = ()
) -> dict[str, Parts]:
    """Return encoder and adapter of every modality of a config.json or a recipe, on the CPU."""
    built = {}
    with somebody_elses(trusted_modules):
        for name, spec in specs.items():
            where = f"modalities.{name}"
            encoder = build(spec.get("encoder"), Encoder, trusted_modules, where=f"{where}.encoder")
            widths = (encoder.out_dim, d_model)
            adapter = build(
                spec.get("adapter"), Adapter, trusted_modules, where=f"{where}.adapter", first=widths
            )
            built[name] = (encoder, adapter)
    return built


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers as they are saved, each once under the first of its names."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Put `tensors` in the place of the module's own, in their dtype; ties and `requires_grad` stay.

    `name` is what errors call them. Raises `UserError` if one is missing, unknown, of another shape or no float
    where it is to be one.
    """
    check_fit(module, tensors, name)
    for key, tensor in own_tensors(module).items():
        tensor.data = tensors[key].contiguous()


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise `UserError` unless `tensors` have the names, shapes and kinds of the module's own."""
    own, names = own_tensors(module), set(module.state_dict())
    problems = [f"{key} is missing" for key in own if key not in tensors]
    problems += [f"{key} is unknown" for key in tensors if key not in names]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in own.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    problems += [
        f"{key} is {tensors[key].dtype}, expected {tensor.dtype}"
        for key, tensor in own.items()
        if key in tensors and not _same_kind(tensors[key].dtype, tensor.dtype)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"the tensors of '{name}' do not fit its configuration: {'; '.join(problems[:3])}{more}; expected both "
            "of one model"
        )


def _same_kind(found: torch.dtype, expected: torch.dtype) -> bool:
    """Say whether a tensor may stand for another: any float that torch computes with, else the same."""
    if expected.is_floating_point:
        return found in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    return found == expected


def write_tensors(
    module: nn.Module,
    path: Path,
    given: Mapping[str, Tensor] | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write the module's tensors as safetensors; the file appears complete or not at all.

    `given` are tensors to write in place of its own. Raises `UserError` if they are not of its names and shapes,
    and for more than `max_bytes`.
    """
    own = own_tensors(module)
    if given is not None:
        check_fit(module, given, "state_dict")
        own = {key: given[key] for key in own}
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in own.items()}
    refuse_updates(state)
    size = sum(tensor.nbytes for tensor in state.values())
    if max_bytes is not None and size > max_bytes:
        raise UserError(
            f"the weights are {size} bytes in one file, found a max_shard_size of {max_bytes}; leave it out"
        )
    refuse_not_finite(state, f"'{path}'")
    # Parameters that are views of one memory, and not the same object, would be refused.
    memory = [tensor.untyped_storage().data_ptr() for tensor in state.values()]
    state = {
        key: tensor.clone() if memory.count(tensor.untyped_storage().data_ptr()) > 1 else tensor
        for key, tensor in state.items()
    }
    with durably(path) as file:  # tensors that were loaded may still map the old file
        write_file(state, Path(file.name))


def offline_spec(model: "CrossModalT5", name: str) -> dict[str, Any]:
    """Return {encoder, adapter} of a modality, such that building them needs no hub and no file."""
    module = model.modality(name)
    spec = model.config.modalities.get(name)
    if spec is None:
        raise UserError(
            f"the model's config does not say of which classes modality '{name}' is; give {{'encoder': {{class_path, "
            "init_args}, 'adapter': ...}} under its name to CrossModalT5Config(modalities=...), or export the run"
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
    model: "CrossModalT5",
    folder: Path,
    about: dict[str, Any] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    max_bytes: int | None = None,
) -> None:
    """Write config.json and model.safetensors; `about` is kept in config.json under `kebyt5_xm`.

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
        ABOUT: about or {},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(model, folder / WEIGHTS, state_dict, max_bytes)
    (folder / "config.json").write_text(text, encoding="utf-8")


def load(source: str, trusted_modules: Sequence[str] = (), local_files_only: bool = False) -> "CrossModalT5":
    """Return the model, in eval mode on the CPU, that `source` names.

    That is a folder that `save` wrote (or one on the hub), a byte-level T5 (an export of a text-only run, or
    google/byt5-small), a run, or one checkpoint of a run. Raises `UserError`.
    """
    with somebody_elses(trusted_modules):
        return _load(open_pretrained(source, local_files_only), trusted_modules)


def _load(found: Pretrained, trusted_modules: Sequence[str]) -> "CrossModalT5":
    if isinstance(found, RunBackbone):
        return _load_run(found.run, trusted_modules)
    if found.content.get("model_type") == CROSS_MODAL:
        return _load_saved(found, trusted_modules)
    from kebyt5_xm.model.configuration import CrossModalT5Config
    from kebyt5_xm.model.cross_modal import CrossModalT5

    backbone = Backbone(weights=found.name).built_from(found)
    fields: dict[str, Any] = {"denoising": Origin.read(found.config).denoising}
    return CrossModalT5(CrossModalT5Config(saved_config(backbone.config), **fields), backbone).eval()


def load_run(run: Run, trusted_modules: Sequence[str] = ()) -> "CrossModalT5":
    """Return the model of a run's chosen, best or last checkpoint, in eval mode on the CPU.

    Encoders are built as the recipe says, so pretrained ones are read from where training had them.
    """
    with somebody_elses(trusted_modules):
        return _load_run(run, trusted_modules)


def _load_run(run: Run, trusted_modules: Sequence[str]) -> "CrossModalT5":
    from kebyt5_xm.commands.export.export import run_denoising
    from kebyt5_xm.model.configuration import CrossModalT5Config

    recipe = run.config.get("model") or {}
    checkpoint = run.checkpoint()
    if (run.backbone / "config.json").is_file():
        backbone = RunBackbone(run).config
        refuse_absurd(backbone, f"'{run.backbone / 'config.json'}'")
    else:
        backbone = saved_config(Backbone(**recipe["backbone"]).config())
    config = CrossModalT5Config(
        backbone,
        {
            name: {key: modality[key] for key in ("encoder", "adapter")}
            for name, modality in (recipe.get("modalities") or {}).items()
        },
        slot_bias=recipe.get("slot_bias") or "shared",
        denoising=run_denoising(run),
    )
    model = _assemble(config, model_tensors(checkpoint), str(checkpoint), trusted_modules)
    model.measure_bytes()
    patterns = [entry.pattern for entry in lora_entries(run).values()]
    for name in model.modalities:
        modality = model.modality(name)
        begun = ((recipe.get("modalities") or {}).get(name) or {}).get("weights")
        inside = [f"modalities.{name}.encoder.{part}" for part, _ in modality.encoder.named_modules()]
        modality.own_encoder = begun is not None or any(fnmatch.filter(inside, p) for p in patterns)
    return model


def read_config(source: str) -> dict[str, Any]:
    """Return the content of config.json of a saved `CrossModalT5`. Raises `UserError` if it is of another."""
    return _content(open_pretrained(source))


def _content(source: Pretrained) -> dict[str, Any]:
    lacking = [key for key in SAVED if key not in source.content]
    if lacking:
        raise UserError(
            f"config.json of '{source.name}' lacks {', '.join(lacking)}; expected that of a saved CrossModalT5"
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
    for key in (key for key in SAVED if wrong[key]):
        raise UserError(
            f"config.json of '{source.name}' says {key}: {str(content[key])[:80]!r}, as no saved CrossModalT5 does; "
            "fetch it again"
        )
    check_modality_names(parts)
    refuse_absurd(content["backbone"], f"config.json of '{source.name}'")
    return content


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _load_saved(source: Pretrained, trusted_modules: Sequence[str]) -> "CrossModalT5":
    from kebyt5_xm.model.configuration import CrossModalT5Config

    content = _content(source)
    config = CrossModalT5Config(**{key: content[key] for key in SAVED})
    path = source.file(WEIGHTS)
    if path is None:
        raise source.lacks(WEIGHTS)
    return _assemble(config, read_tensors(path), source.name, trusted_modules)


def _assemble(
    config: "CrossModalT5Config", tensors: dict[str, Tensor], name: str, trusted_modules: Sequence[str]
) -> "CrossModalT5":
    from kebyt5_xm.model.cross_modal import CrossModalT5

    held_to_trust(config.modalities, trusted_modules)  # before anything is said of the weights
    backbone = without_weights(t5_config(config.backbone))
    part = "backbone."
    check_fit(backbone, {k.removeprefix(part): t for k, t in tensors.items() if k.startswith(part)}, name)
    largest = max(tensor.numel() for tensor in tensors.values())
    with at_most(largest):
        modalities = build_modalities(config.modalities, backbone.config.d_model, trusted_modules)
    backbone.to_empty(device=torch.device("cpu"))  # no time is spent on random weights
    model = CrossModalT5(config, backbone, modalities)
    load_tensors(model, tensors, name)
    return model.eval()
