"""Saves a `CrossModalT5` as a folder and loads it: JSON and safetensors, no pickles.

FOLDER/config.json              the T5's config, each modality's classes and arguments, and the settings
FOLDER/generation_config.json   the defaults of `generate`
FOLDER/model.safetensors        every tensor once; shards with an index if it is large
FOLDER/draft_heads.safetensors  those of draft heads, if the model has them
FOLDER/digests.json             the digest of every file of tensors, which loading checks
"""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig

from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CONFIG_KEYS, GATE, CrossModalT5Config, check_fields
from kebyt5_xm.model.ctc import PREFIX as CTC_PREFIX
from kebyt5_xm.model.delete_gate_files import run_gate
from kebyt5_xm.model.draft_heads import FILE, PREFIX, DraftHeadsModule
from kebyt5_xm.model.draft_heads_files import KEY as HEADS_KEY
from kebyt5_xm.model.draft_heads_files import about_heads, heads_of, saved_heads, tensors_under
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.origin import Origin, run_denoising
from kebyt5_xm.model.pretrained import RunBackbone
from kebyt5_xm.model.runs.run import Run, lora_entries, model_tensors
from kebyt5_xm.model.specs import build_modalities, limit_tensor_size
from kebyt5_xm.model.t5 import check_config, saved_config, t5_config, without_weights
from kebyt5_xm.model.tensor_files import check_fit, load_tensors, state_to_save, write_tensors
from kebyt5_xm.trust import check_trusted, without_working_folder
from kebyt5_xm.weight_files import ABOUT, CROSS_MODAL, MAX_SHARD_BYTES, WEIGHTS, write_digests, write_weights

Model = TypeVar("Model", bound=CrossModalNetwork)

GENERATION = "generation_config.json"


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
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write config.json, the weights and their digests, and generation_config.json.

    Args:
        model: the model.
        folder: is made if there is none. Files of an earlier model are replaced.
        about: the origin of the weights, under the key `kebyt5_xm`; by default that which the model was loaded with.
        state_dict: tensors to write instead of the model's own.
        max_shard_bytes: larger weights are written as shards.
    """
    config = model.config
    if about is None:  # the hash is of the tensors that were loaded, and these may be others
        about = {key: value for key, value in config.kebyt5_xm.items() if key != "backbone_hash"}
    content = {
        "architectures": ["CrossModalT5"],
        "model_type": config.model_type,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "dtype": str(model.dtype).removeprefix("torch."),
        "backbone": saved_config(model.backbone.config),
        "modalities": {name: offline_spec(model, name) for name in model.modalities},
        "slot_bias": config.slot_bias,
        "denoising": config.denoising,
        "byte_rms": model.byte_rms(),
        **({} if config.delete_gate is None else {GATE: config.delete_gate}),
        ABOUT: {key: value for key, value in about.items() if key != HEADS_KEY}
        | about_heads(model.draft_heads),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    state = state_to_save(model, str(folder / WEIGHTS), state_dict, without=(PREFIX, CTC_PREFIX))
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(state, folder, max_shard_bytes)
    if model.draft_heads is not None:
        own = None if state_dict is None else tensors_under(PREFIX, state_dict)
        write_tensors(model.draft_heads, folder / FILE, own)
    else:
        (folder / FILE).unlink(missing_ok=True)
    write_digests(folder)
    assert model.generation_config is not None
    model.generation_config.save_pretrained(folder)
    (folder / "config.json").write_text(text, encoding="utf-8")


def load(
    cls: type[Model],
    opened: Pretrained,
    trusted_modules: Sequence[str] = (),
    config: CrossModalT5Config | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> Model:
    """Return the model of class `cls` in eval mode on the CPU.

    `opened` is a folder that `save` wrote (or one on the hub), a byte-level T5 (an export of a text-only run, or
    google/byt5-small), a run, or one checkpoint of a run. For a saved `CrossModalT5`, `config` and `state_dict` are
    used instead of its own. Raises `UserError`.
    """
    with without_working_folder(trusted_modules):
        is_saved = not isinstance(opened, RunBackbone) and opened.content.get("model_type") == CROSS_MODAL
        if is_saved:
            return _load_saved(cls, opened, trusted_modules, config, state_dict)
        if config is not None or state_dict is not None:
            raise UserError(
                f"found config or state_dict for '{opened.name}', expected them with a saved CrossModalT5 alone; "
                "load the model and change it"
            )
        if isinstance(opened, RunBackbone):
            return load_run(cls, opened.run, trusted_modules)
        backbone = Backbone(weights=opened.name).build_from(opened)
        about = Origin.read(opened.config)
        config = CrossModalT5Config(
            saved_config(backbone.config), denoising=about.denoising, kebyt5_xm=opened.config.get(ABOUT)
        )
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
            delete_gate=run_gate(run),
            kebyt5_xm=backbone.get(ABOUT),
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


def read_config(source: Pretrained) -> dict[str, Any]:
    """Return the content of config.json of a saved `CrossModalT5`. Raises `UserError` for another model's."""
    check_fields(source.content, f"config.json of '{source.name}'")
    return source.content


def _load_saved(
    cls: type[Model],
    source: Pretrained,
    trusted_modules: Sequence[str],
    config: CrossModalT5Config | None,
    state_dict: Mapping[str, Tensor] | None,
) -> Model:
    content = read_config(source)
    if config is None:
        fields: Any = {key: content.get(key) for key in (*CONFIG_KEYS, GATE)}
        config = CrossModalT5Config(**fields, kebyt5_xm=content.get(ABOUT))
    else:
        _check_given(config)
    if state_dict is not None:
        return build(cls, config, state_dict, trusted_modules, "state_dict")
    heads = saved_heads(source)
    model = _assemble(cls, config, source.all_tensors(), source.name, trusted_modules, heads)
    if (path := source.file(GENERATION)) is not None:
        model.generation_config = _read_generation(source, path)
    return model


def build(
    cls: type[Model],
    config: CrossModalT5Config,
    tensors: Mapping[str, Tensor],
    trusted_modules: Sequence[str] = (),
    name: str = "state_dict",
) -> Model:
    """Return a model in eval mode on the CPU with the configuration and all tensors given, draft heads among them.

    `name` is the tensors' in errors. Raises `UserError` for a configuration that no model has, and for tensors that
    do not fit it.
    """
    _check_given(config)
    own = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
    return _assemble(cls, config, own, name, trusted_modules, heads_of(own, name))


def _check_given(config: CrossModalT5Config) -> None:
    """Raise `UserError` for values that no saved model has, and for an attention that a loaded one does not take."""
    check_fields(vars(config), "the configuration")
    attention = getattr(config, "_attn_implementation", None)
    if attention not in (None, "sdpa"):
        raise UserError(
            f"found attn_implementation='{attention}', expected sdpa, which a loaded model has; leave it out"
        )


def _read_generation(source: Pretrained, path: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_dict(source.read_mapping(path))
    except UserError:
        raise
    except (ValueError, TypeError, AttributeError) as error:  # what transformers raises for odd values
        raise UserError(
            f"{GENERATION} of '{source.name}' cannot be used: {first_line(error)}; correct it, or delete it"
        ) from error


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
    largest = max((tensor.numel() for tensor in tensors.values()), default=0)
    with limit_tensor_size(largest):
        modalities = build_modalities(config.modalities, backbone.config.d_model, trusted_modules)
    backbone.to_empty(device=torch.device("cpu"))  # spends no time on random weights
    model = cls(config, backbone, modalities)
    own = {key: t for key, t in tensors.items() if not key.startswith((PREFIX, CTC_PREFIX))}
    load_tensors(model, own, name)
    model.draft_heads = draft_heads
    return model.eval()
