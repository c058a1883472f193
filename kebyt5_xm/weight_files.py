"""Weight files of saved models: their names, reading and writing them, and their digests.

A model folder holds `config.json` and the weights, in one file or in shards that an index lists. `digests.json` holds
the digest of every weight file, so that a damaged or exchanged file is found before it is used.
"""

import json
import pickle
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.durable import durable_file, file_digest, sync
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
DIGESTS = "digests.json"
"""File name -> BLAKE2b digest of every safetensors file in the same folder."""

MAX_SHARD_BYTES = 5 * 10**9
"""Weights larger than this are written as shards; huggingface_hub's default."""

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


# -- reading ------------------------------------------------------------------------------------------------


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


def read_digests(path: Path | None) -> dict[str, str]:
    """Return the content of a digests.json, empty for None; raise `UserError` if it is not valid."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not JSON ({first_line(error)}); fetch it again") from error
    if not isinstance(content, dict) or not all(isinstance(digest, str) for digest in content.values()):
        raise UserError(f"'{path}' is no mapping of file names to digests; fetch it again")
    return content


def check_digest(path: Path, digests: Mapping[str, str]) -> None:
    """Raise `UserError` unless a file has the digest that the digests.json of its folder lists.

    Without digests, as in models that others saved, nothing is checked.
    """
    if not digests:
        return
    remedy = f"fetch the model again, or delete {DIGESTS} if you changed the weights yourself"
    expected = digests.get(path.name)
    if expected is None:
        raise UserError(f"'{path}' is not listed in {DIGESTS}, so it is not a file of this model; {remedy}")
    found = file_digest(path)
    if found != expected:
        raise UserError(
            f"'{path}' has the digest {found}, expected {expected} of {DIGESTS}: it is damaged, incomplete or of "
            f"another model; {remedy}"
        )


# -- writing ------------------------------------------------------------------------------------------------


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


def write_weights(tensors: "dict[str, Tensor]", folder: Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
    """Write model.safetensors, or shards and their index if it would be larger than `max_shard_bytes`.

    A single larger tensor gets a shard of its own. Every file appears complete or not at all, and files of an earlier
    model in the folder are removed.
    """
    from huggingface_hub import split_torch_state_dict_into_shards

    pattern = WEIGHTS.replace(".", "{suffix}.")
    plan = split_torch_state_dict_into_shards(
        tensors, filename_pattern=pattern, max_shard_size=max_shard_bytes
    )
    for name, keys in plan.filename_to_tensors.items():
        with durable_file(folder / name) as file:  # a new file: loaded tensors may still map the old one
            write_safetensors({key: tensors[key] for key in keys}, Path(file.name))
    index = folder / f"{WEIGHTS}.index.json"
    if plan.is_sharded:
        content = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        with durable_file(index) as file:
            file.write((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    else:
        index.unlink(missing_ok=True)
    for path in folder.iterdir():
        is_weights = path.name == WEIGHTS or _SHARD.fullmatch(path.name)
        if is_weights and path.name not in plan.filename_to_tensors:
            path.unlink()


def write_digests(folder: Path) -> None:
    """Write the digests of all safetensors files of a folder into its digests.json."""
    digests = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
    with durable_file(folder / DIGESTS) as file:
        file.write((json.dumps(digests, indent=2) + "\n").encode())
