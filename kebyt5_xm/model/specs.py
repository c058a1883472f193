"""From `{class_path, init_args}` to an instance: imports only trusted classes, and bounds what they may allocate.

A config.json comes from whoever made the export. It may name classes of this project and of the packages that the
caller lists. Any other class is refused before it is imported.
"""

import importlib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.trust import check_class_trusted, replace_renamed_classes, without_working_folder

T = TypeVar("T")
Parts = tuple[Encoder, Adapter]

MIN_TENSOR_LIMIT = 1 << 28
"""Smallest limit that `limit_tensor_size` sets: 1 GiB in fp32. An encoder may build more than it saves."""

_SIZED_BY_SHAPE = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.randint)
_SIZED_BY_COUNT = (torch.arange, torch.linspace, torch.eye)


# -- building ---------------------------------------------------------------------------------------------


def build(
    spec: Any, base: type[T], trusted_modules: Sequence[str] = (), *, where: str, first: Sequence[Any] = ()
) -> T:
    """Return the instance that `spec` describes.

    Args:
        spec: {class_path, init_args}, as in a recipe. An argument that is itself such a mapping is built too, if
            its class is a module of torch.
        base: the class must be a subclass of this.
        trusted_modules: packages besides this project's own that may be imported.
        where: name of the spec's place, for error messages.
        first: positional arguments that come before those of `spec`.

    Raises `UserError` for a class that is not trusted, cannot be imported or is no subclass of `base`, and for
    arguments that it does not take.
    """
    spec = replace_renamed_classes(spec)
    cls = import_class(spec, base, trusted_modules, where)
    init_args = spec.get("init_args") or {}
    if not isinstance(init_args, dict) or not all(isinstance(key, str) for key in init_args):
        raise UserError(f"{where}: init_args is {str(init_args)[:80]!r}; expected a mapping")
    _check_arguments(cls, first, init_args, where)
    arguments = {
        key: build(value, nn.Module, trusted_modules, where=f"{where}.{key}")
        if isinstance(value, dict) and "class_path" in value
        else value
        for key, value in init_args.items()
    }
    try:
        return cls(*first, **_lists_to_tuples(cls, arguments))
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, MemoryError, OverflowError, ZeroDivisionError) as error:
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}: {cls.__name__} cannot be built: {type(error).__name__}: {cause}"
        ) from error


def build_modalities(
    specs: dict[str, dict[str, Any]], d_model: int, trusted_modules: Sequence[str] = ()
) -> dict[str, Parts]:
    """Return encoder and adapter of every modality of a config.json or a recipe, on the CPU."""
    modalities = {}
    with without_working_folder(trusted_modules):
        for name, spec in specs.items():
            where = f"modalities.{name}"
            encoder = build(spec.get("encoder"), Encoder, trusted_modules, where=f"{where}.encoder")
            widths = (encoder.out_dim, d_model)
            adapter = build(
                spec.get("adapter"), Adapter, trusted_modules, where=f"{where}.adapter", first=widths
            )
            modalities[name] = (encoder, adapter)
    return modalities


def import_class(spec: Any, base: type[T], trusted_modules: Sequence[str], where: str) -> type[T]:
    """Return the class of `spec`. Raises `UserError` if it is not trusted, missing, or no subclass of `base`."""
    class_path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(class_path, str) or set(spec) - {"class_path", "init_args"}:
        raise UserError(f"{where} is {str(spec)[:80]!r}; expected a mapping of class_path and init_args")
    check_class_trusted(class_path, trusted_modules, where)
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where} is '{class_path}', but there is no module '{error.name}'; install its package, or put its "
            "folder on PYTHONPATH"
        ) from error
    except Exception as error:  # a module may raise anything while it is imported
        cause = " ".join(str(error).split())[:200]
        raise UserError(
            f"{where}: '{module_name}' cannot be imported ({type(error).__name__}: {cause})"
        ) from error
    cls = getattr(module, name, None)
    if cls is None:
        raise UserError(f"{where}: '{module_name}' has no '{name}'{did_you_mean(name, vars(module))}")
    if not isinstance(cls, type) or not issubclass(cls, base) or inspect.isabstract(cls):
        raise UserError(f"{where}: '{class_path}' is not a class of the kind {base.__name__}")
    return cls


def _check_arguments(cls: type, first: Sequence[Any], init_args: dict[str, Any], where: str) -> None:
    signature = inspect.signature(cls)
    try:
        signature.bind(*first, **init_args)
    except TypeError as error:
        near = next(
            (did_you_mean(key, signature.parameters) for key in init_args if f"'{key}'" in str(error)), ""
        )
        raise UserError(f"{where}: {cls.__name__} cannot be built: {error}{near}") from error


def _lists_to_tuples(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments, lists as tuples where the class annotates a tuple: JSON and YAML have no tuples."""
    try:
        hints = typing.get_type_hints(cls.__init__)
    except Exception:  # a third-party annotation that cannot be resolved
        return arguments
    return {
        name: tuple(value) if isinstance(value, list) and _is_tuple_hint(hints.get(name)) else value
        for name, value in arguments.items()
    }


def _is_tuple_hint(hint: Any) -> bool:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [typing.get_origin(h) or h for h in (typing.get_args(hint) if is_union else (hint,))]
    return tuple in kinds and list not in kinds


# -- bounding memory --------------------------------------------------------------------------------------


@contextmanager
def limit_tensor_size(limit: int) -> Iterator[None]:
    """Raise `UserError` when a tensor of more than `limit` (at least `MIN_TENSOR_LIMIT`) values is made.

    A third-party config.json may ask for a tensor that does not fit into the machine's memory.
    """
    with _TensorSizeLimit(max(limit, MIN_TENSOR_LIMIT)):
        yield


class _TensorSizeLimit(TorchFunctionMode):
    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SIZED_BY_SHAPE or func in _SIZED_BY_COUNT:
            size = [*args, *kwargs.values()]
            nested = next((s for s in size if isinstance(s, tuple | list)), None)
            numbers = [n for n in (size if nested is None else nested) if isinstance(n, int | float)]
            values = math.prod(numbers) if func in _SIZED_BY_SHAPE else max(numbers, default=0)
            if abs(values) > self.limit and torch.device(kwargs.get("device") or "cpu").type != "meta":
                raise UserError(
                    f"a tensor of {values:.3g} values would be made, expected at most {self.limit:.3g} by the size "
                    "of its weights file; its config.json is damaged or of another model"
                )
        return func(*args, **kwargs)
