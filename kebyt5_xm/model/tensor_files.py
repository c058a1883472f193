"""The tensors of a module, and a safetensors file of them, checked by name, shape and kind."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.finite import refuse_not_finite
from kebyt5_xm.model.lora import refuse_updates
from kebyt5_xm.weight_files import write_safetensors


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
    with durable_file(path) as file:  # tensors that were loaded may still map the old file
        write_safetensors(state, Path(file.name))
