"""Weight files of saved models: their names, and reading and writing tensors.

A model folder holds `config.json` and the weights, in one file or in shards that an index lists.
"""

import json
import pickle
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.durable import sync
from kebyt5_xm.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "model.safetensors"
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
"""transformers' names of weight files, in the order tried; NAME.index.json lists the shards of a large one."""

CROSS_MODAL = "kebyt5_xm"
"""`model_type` in the config.json of a saved CrossModalT5."""
ABOUT = "kebyt5_xm"
"""Key in config.json under which this project records the origin of the weights."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a `.safetensors` file, or of a `torch.save` file that holds only tensors.

    Raises `UserError` if the file cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"'{path}' cannot be read ({first_line(error)}); it may be incomplete: fetch it again"
        ) from error


def write_safetensors(tensors: "dict[str, Tensor]", path: Path) -> None:
    """Write and sync a safetensors file with the format mark `pt`, which transformers requires.

    safetensors (0.8) replaces the file at `path` by a new one that only its owner may read, so the mode is restored.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)
    sync(path)


def read_shard_names(index: Path) -> list[str]:
    """Return the names of the shards that an index lists; raise `UserError` if the index is not valid."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{index}' is not an index of weight files ({error}); fetch it again") from error
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or Path(name).suffix not in (".safetensors", ".bin")
        ):
            raise UserError(
                f"'{index}' lists the file {name!r:.80}, expected names of weight files in the same folder"
            )
    return names
