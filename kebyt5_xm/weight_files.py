"""Files of saved models: what they are called, and how tensors are read from them and written.

A folder holds `config.json` beside its weights, in one file or in shards that an index lists.
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
"""In the order tried; NAME.index.json names the shards of a large one. transformers' names."""

CROSS_MODAL = "kebyt5_xm"
"""`model_type` of a saved CrossModalT5, of which the T5 is one part."""
ABOUT = "kebyt5_xm"
"""The key of a config.json under which this project says where the weights come from."""


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a `.safetensors` file, or of one of `torch.save` that holds nothing but tensors.

    Raises `UserError` if it cannot be read.
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
    """Write tensors as safetensors, marked as PyTorch's, as transformers asks of such a file, and sync them.

    safetensors (0.8) does not write into the file at `path`: it puts a new one there, which its owner alone may read.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(mode)
    sync(path)


def read_shard_names(index: Path) -> list[str]:
    """Return the names of the files that an index lists. Raises `UserError`."""
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{index}' is no index of weight files ({error}); fetch it again") from error
    for name in named:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or Path(name).suffix not in (".safetensors", ".bin")
        ):
            raise UserError(
                f"'{index}' lists the file {name!r:.80}, expected names of weight files beside it"
            )
    return named
