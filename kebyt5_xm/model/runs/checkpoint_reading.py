"""What a checkpoint holds, whichever strategy wrote it, read on the CPU and without running code from a file."""

import pickle
import re
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError, first_line
from kebyt5_xm.model.runs.digest import is_damaged
from kebyt5_xm.model.runs.pickles import refuse_code

if TYPE_CHECKING:
    from torch import Tensor

MODEL_PREFIX = "model."
"""The keys of the whole model in a checkpoint of `kebyt5_xm.training.task.Task` begin with this."""

BACKBONE_PREFIX = "model.backbone."
"""The backbone's keys in a checkpoint of `kebyt5_xm.training.task.Task` begin with this."""

STEP = re.compile(r"step=(\d+)\.ckpt")
"""The name of a checkpoint that was written after so many optimizer steps."""


FOLDER_STEP = "optimizer_step"
"""The file of a checkpoint folder that says after how many optimizer steps it was written."""


class Kind(StrEnum):
    FILE = "a file"
    SHARDED = "a folder of a sharded run"
    DEEPSPEED = "a folder of DeepSpeed"


def kind_of(path: Path) -> Kind:
    """Return the kind of the checkpoint at `path`; raise `UserError` for a folder that is none or names code."""
    if path.is_file():
        return Kind.FILE
    if (path / ".metadata").is_file() or (path / "latest").is_file():
        refuse_code(path)
    if (path / ".metadata").is_file():  # of torch.distributed.checkpoint
        return Kind.SHARDED
    if (path / "latest").is_file():
        return Kind.DEEPSPEED
    raise UserError(f"'{path}' is not a checkpoint: neither a file nor a sharded checkpoint's directory")


def stored_tensors(checkpoint: Path, wanted: str) -> "dict[str, Tensor]":
    """Return the tensors whose names begin with `wanted`, without it. Raises `UserError` for none."""
    refuse_damaged(checkpoint)
    if checkpoint.is_file():
        state = read_checkpoint(checkpoint)["state_dict"]
    elif kind_of(checkpoint) is Kind.SHARDED:
        state = _read_sharded(checkpoint, wanted)
    else:
        state = _read_deepspeed(checkpoint)
    tensors = {k.removeprefix(wanted): v for k, v in state.items() if k.startswith(wanted)}
    if not tensors:
        raise UserError(f"checkpoint '{checkpoint}' holds no '{wanted}*' tensors; it is not of this project")
    return tensors


def checkpoint_step(checkpoint: Path) -> int | None:
    """Return the optimizer step at which a checkpoint was written; None for a folder that does not say."""
    if match := STEP.fullmatch(checkpoint.name):
        return int(match[1])
    if checkpoint.is_file():
        return read_checkpoint(checkpoint)["global_step"]
    try:
        return int((checkpoint / FOLDER_STEP).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def refuse_damaged(path: Path) -> None:
    """Raise `UserError` if a checkpoint, a file or a folder, does not hold what was written."""
    if is_damaged(path):
        raise UserError(
            f"checkpoint '{path}' is damaged: its bytes are not those that were written; choose another of the run's "
            "checkpoints, or --ckpt_path last, which passes it over"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint that Lightning wrote as one file."""
    import torch

    refuse_damaged(path)
    try:  # mapped, so that the optimizer's state beside the weights is never read
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


def _read_sharded(path: Path, beginning: str) -> "dict[str, Tensor]":
    """Read tensors of the model, not the optimizer's state, out of a `torch.distributed.checkpoint` directory."""
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    prefix = "state_dict."  # Lightning's nesting, flattened with dots by torch.distributed.checkpoint
    reader = FileSystemReader(path)
    wanted: dict[str, Any] = {
        key: torch.empty(tuple(entry.size), dtype=entry.properties.dtype)
        for key, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata) and key.startswith(prefix + beginning)
    }
    if wanted:
        with warnings.catch_warnings():  # that it reads in one process is intended
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            load(wanted, storage_reader=reader, no_dist=True)
    return {key.removeprefix(prefix): tensor for key, tensor in wanted.items()}


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
