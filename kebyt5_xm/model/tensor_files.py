"""Writes a module's tensors to safetensors and loads them, checked by name, shape and dtype."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.finite import refuse_non_finite
from kebyt5_xm.model.lora import refuse_updates
from kebyt5_xm.weight_files import write_safetensors


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers to save, each once under the first of its names."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor
    return tensors


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], name: str) -> None:
    """Replace the module's tensors by `tensors`, in their dtype; tied weights and `requires_grad` stay.

    `name` is for errors. Raises `UserError` if a tensor is missing, unknown or of another shape, or if floats and
    integers are confused.
    """
    check_fit(module, tensors, name)
    for key, tensor in unique_tensors(module).items():
        tensor.data = tensors[key].contiguous()


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise `UserError` unless `tensors` have the names, shapes and kinds of dtype of the module's."""
    expected, names = unique_tensors(module), set(module.state_dict())
    problems = [f"{key} is missing" for key in expected if key not in tensors]
    problems += [f"{key} is unknown" for key in tensors if key not in names]
    problems += [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in tensors and tensors[key].shape != tensor.shape
    ]
    problems += [
        f"{key} is {tensors[key].dtype}, expected {tensor.dtype}"
        for key, tensor in expected.items()
        if key in tensors and not _same_kind(tensors[key].dtype, tensor.dtype)
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"the tensors of '{name}' do not fit its configuration: {'; '.join(problems[:3])}{more}; expected both "
            "from one model"
        )


def _same_kind(found: torch.dtype, expected: torch.dtype) -> bool:
    """Return whether dtype `found` is acceptable: any float that torch computes with, otherwise the same dtype."""
    if expected.is_floating_point:
        return found in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    return found == expected


def state_to_save(
    module: nn.Module,
    target: str,
    state_dict: Mapping[str, Tensor] | None = None,
    without: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Return the module's tensors on the CPU, each once and none sharing memory with another.

    `target` is where they are written, for errors. `state_dict` are tensors to save instead. Those whose names begin
    with one of `without` are left out. Raises `UserError` if they do not have the names and shapes of the module's,
    for LoRA that is not merged, and for values that are not finite.
    """
    tensors = unique_tensors(module)
    if state_dict is not None:
        check_fit(module, state_dict, "state_dict")
        tensors = {key: state_dict[key] for key in tensors}
    state = {
        key: tensor.detach().cpu().contiguous()
        for key, tensor in tensors.items()
        if not key.startswith(without)
    }
    refuse_updates(state)
    refuse_non_finite(state, f"'{target}'")
    memory = Counter(tensor.untyped_storage().data_ptr() for tensor in state.values())
    return {
        key: tensor.clone() if memory[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for key, tensor in state.items()
    }


def write_tensors(module: nn.Module, path: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
    """Write the module's tensors into one safetensors file, which appears complete or not at all.

    `state_dict` and the errors are those of `state_to_save`.
    """
    state = state_to_save(module, str(path), state_dict)
    with durable_file(path) as file:  # a new file: loaded tensors may still map the old one
        write_safetensors(state, Path(file.name))
