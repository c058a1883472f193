"""Draft heads in runs and exports: among the model's tensors in a checkpoint, in a file of their own in an export.

The config.json of an export says how many there are, so that no other model is searched for them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.draft_heads import FILE, PREFIX, DraftHeadsModule
from kebyt5_xm.model.model_files import Pretrained
from kebyt5_xm.model.runs.run import model_tensors
from kebyt5_xm.weight_files import ABOUT

KEY = "draft_heads"
"""Key under `kebyt5_xm` in the config.json of an export: their number."""


def about_heads(heads: DraftHeadsModule | None) -> dict[str, Any]:
    """Return what config.json says of a model's heads under `kebyt5_xm`; nothing if it has none."""
    return {} if heads is None else {KEY: heads.count}


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def heads_of(tensors: Mapping[str, Tensor], name: str) -> DraftHeadsModule | None:
    """Return the heads among a model's tensors, None if there are none; `name` is for errors."""
    found = tensors_under(PREFIX, tensors)
    return DraftHeadsModule.of(found, name) if found else None


def run_heads(checkpoint: Path) -> DraftHeadsModule | None:
    """Return the heads in a run's checkpoint, None if it has none."""
    return heads_of(model_tensors(checkpoint), str(checkpoint))


def saved_heads(source: Pretrained) -> DraftHeadsModule | None:
    """Return the heads of an export, None if it has none. Raises `UserError` if their file is missing or damaged."""
    about = source.content.get(ABOUT)
    if not isinstance(about, dict) or not about.get(KEY):
        return None
    if source.file(FILE) is None:
        raise UserError(
            f"config.json of '{source.name}' says that it has draft heads, but there is no {FILE}; fetch it again, "
            f"or take '{KEY}' out of config.json"
        )
    name = f"{FILE} of {source.name}"
    heads = DraftHeadsModule.of(source.read(FILE), name)
    config = source.config
    heads.check(config["d_model"], config["vocab_size"], name)
    return heads
