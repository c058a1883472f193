"""Reads a checkpoint that any strategy wrote, on the CPU and without running code from it.

Folders of torch.distributed.checkpoint and DeepSpeed hold pickles, and these libraries open them by running the code
that they name. So the names in the pickles are read first, without running anything, and compared with those that the
libraries themselves write.
"""

import pickle
import re
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.runs.digest import is_damaged

if TYPE_CHECKING:
    from torch import Tensor

MODEL_PREFIX = "model."
"""Prefix of the whole model's keys in a checkpoint of `kebyt5_xm.training.task.Task`."""

BACKBONE_PREFIX = "model.backbone."
"""Prefix of the backbone's keys in a checkpoint of `kebyt5_xm.training.task.Task`."""

STEP = re.compile(r"step=(\d+)\.ckpt")
"""Name of a checkpoint: the number of optimizer steps before it."""

FOLDER_STEP = "optimizer_step"
"""File of a checkpoint folder: the number of optimizer steps before it."""

SHARDED_NAMES = re.compile(
    r"torch\.distributed\.checkpoint\.(metadata\.\w+|filesystem\._Storage\w+)|torch\.(Size|b?float\w+|u?int\w+|bool)"
    r"|torch\.serialization\._get_layout|pathlib\.\w*Path|collections\.OrderedDict"
)
"""Names in `.metadata` of torch.distributed.checkpoint (torch 2.11). It opens the tensor files itself, as tensors."""

DEEPSPEED_NAMES = re.compile(
    r"deepspeed\.runtime\.(zero|fp16|bf16_optimizer)(\.\w+)*\.[A-Z]\w+|deepspeed\.utils\.tensor_fragment\.fragment_address"
)
"""Names in DeepSpeed's files (0.19.8) besides tensors and plain values: its own classes for settings."""


class Kind(StrEnum):
    FILE = "a file"
    SHARDED = "a folder of a sharded run"
    DEEPSPEED = "a folder of DeepSpeed"


def kind_of(path: Path) -> Kind:
    """Return the kind of the checkpoint at `path`; raise `UserError` if it is no checkpoint or names code."""
    if path.is_file():
        return Kind.FILE
    if (path / ".metadata").is_file():  # of torch.distributed.checkpoint
        _refuse_code(path)
        return Kind.SHARDED
    if (path / "latest").is_file():
        _refuse_code(path)
        return Kind.DEEPSPEED
    raise UserError(f"'{path}' is not a checkpoint: neither a file nor a sharded checkpoint's directory")


def stored_tensors(checkpoint: Path, prefix: str) -> "dict[str, Tensor]":
    """Return the tensors whose names begin with `prefix`, without it; raise `UserError` if there are none."""
    refuse_damaged(checkpoint)
    if checkpoint.is_file():
        state = read_checkpoint(checkpoint)["state_dict"]
    elif kind_of(checkpoint) is Kind.SHARDED:
        state = _read_sharded(checkpoint, prefix)
    else:
        state = _read_deepspeed(checkpoint)
    tensors = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not tensors:
        raise UserError(f"checkpoint '{checkpoint}' holds no '{prefix}*' tensors; it is not of this project")
    return tensors


def checkpoint_step(checkpoint: Path) -> int | None:
    """Return the optimizer step at which a checkpoint was written; None for a folder without that file."""
    if match := STEP.fullmatch(checkpoint.name):
        return int(match[1])
    if checkpoint.is_file():
        return read_checkpoint(checkpoint)["global_step"]
    try:
        return int((checkpoint / FOLDER_STEP).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def refuse_damaged(path: Path) -> None:
    """Raise `UserError` if the bytes of a checkpoint, a file or a folder, do not have the digests written with it."""
    if is_damaged(path):
        raise UserError(
            f"checkpoint '{path}' is damaged: its bytes are not those that were written; choose another of the run's "
            "checkpoints, or --ckpt_path last, which skips it"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that Lightning wrote as one file."""
    import torch

    refuse_damaged(path)
    try:  # memory-mapped: where only weights are used, the optimizer's state is never read
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint '{path}' holds objects other than tensors and plain values and was not opened: "
            f"{first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise UserError(
            f"checkpoint '{path}' cannot be read ({first_line(error)}); it may be incomplete: "
            "choose another of the run's checkpoints"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "global_step"} <= content.keys():
        raise UserError(f"'{path}' is not a checkpoint of Lightning; expected one that train.py wrote")
    return content


def _read_sharded(path: Path, prefix: str) -> "dict[str, Tensor]":
    """Read tensors of the model, not the optimizer's state, from a `torch.distributed.checkpoint` directory."""
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    nesting = "state_dict."  # Lightning's nesting, flattened with dots by torch.distributed.checkpoint
    reader = FileSystemReader(path)
    tensors: dict[str, Any] = {
        key: torch.empty(tuple(entry.size), dtype=entry.properties.dtype)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and key.startswith(nesting + prefix)
    }
    if tensors:
        with warnings.catch_warnings():  # reading in one process is intended
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(tensors, storage_reader=reader, no_dist=True)
    return {key.removeprefix(nesting): tensor for key, tensor in tensors.items()}


def _read_deepspeed(path: Path) -> "dict[str, Tensor]":
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise UserError(
            f"checkpoint '{path}' was written by DeepSpeed, which is not installed here; install "
            "'kebyt5-xm[deepspeed]'"
        ) from error
    state = get_fp32_state_dict_from_zero_checkpoint(str(path))
    assert isinstance(state, dict)
    return {name: tensor.detach() for name, tensor in state.items()}


# -- pickles in checkpoint folders ------------------------------------------------------------------------


class _UnexpectedNameError(Exception):
    """A pickle names something that torch and DeepSpeed do not write into it."""


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if not SHARDED_NAMES.fullmatch(f"{module}.{name}"):
            raise _UnexpectedNameError(f"{module}.{name}")
        return super().find_class(module, name)


def _refuse_code(folder: Path) -> None:
    """Raise `UserError` if a pickle in a checkpoint folder names code that torch or DeepSpeed do not write there."""
    try:
        if (folder / ".metadata").is_file():
            with (folder / ".metadata").open("rb") as file:
                _RestrictedUnpickler(file).load()
            return
        from torch.serialization import get_unsafe_globals_in_checkpoint

        for path in sorted(folder.rglob("*.pt")):
            for name in get_unsafe_globals_in_checkpoint(path):
                if not DEEPSPEED_NAMES.fullmatch(name):
                    raise _UnexpectedNameError(name)
    except _UnexpectedNameError as error:
        raise UserError(
            f"checkpoint '{folder}' names {error} in a pickle, which no checkpoint of this project does; it was not "
            "opened, as that would run it"
        ) from None
    except Exception as error:  # a pickle that is cut or damaged fails in many ways
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"checkpoint '{folder}' cannot be read ({type(error).__name__}: {cause}); choose another of the run's"
        ) from error
