"""From `{class_path, init_args}` to an instance, importing only what is trusted.

A config.json comes from whoever made the export. It may name classes of this project and of the packages that
the caller lists; anything else is refused before it is imported.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.trust import check_trusted, replace_renamed_classes, without_working_folder

T = TypeVar("T")
Parts = tuple[Encoder, Adapter]


def build(
    spec: Any, base: type[T], trusted_modules: Sequence[str] = (), *, where: str, first: Sequence[Any] = ()
) -> T:
    """Return the instance that `spec` describes.

    Args:
        spec: {class_path, init_args}, as in a recipe; such a mapping among the arguments, of a module of torch, is
            built as well.
        base: what the class must be a subclass of.
        trusted_modules: packages beside this project's own that may be imported.
        where: what errors call the place where `spec` stands.
        first: positional arguments that come before those of `spec`.

    Raises `UserError` for a class that is not trusted, is not to be had or is no `base`, and for arguments that
    it does not take.
    """
    spec = replace_renamed_classes(spec)
    cls = _find(spec, base, trusted_modules, where)
    given = spec.get("init_args") or {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise UserError(f"{where}: init_args is {str(given)[:80]!r}; expected a mapping")
    _check_arguments(cls, first, given, where)
    arguments = {key: _built(value, trusted_modules, f"{where}.{key}") for key, value in given.items()}
    try:
        return cls(*first, **_with_tuples(cls, arguments))
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
    built = {}
    with without_working_folder(trusted_modules):
        for name, spec in specs.items():
            where = f"modalities.{name}"
            encoder = build(spec.get("encoder"), Encoder, trusted_modules, where=f"{where}.encoder")
            widths = (encoder.out_dim, d_model)
            adapter = build(
                spec.get("adapter"), Adapter, trusted_modules, where=f"{where}.adapter", first=widths
            )
            built[name] = (encoder, adapter)
    return built


def _find(spec: Any, base: type[T], trusted_modules: Sequence[str], where: str) -> type[T]:
    class_path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(class_path, str) or set(spec) - {"class_path", "init_args"}:
        raise UserError(f"{where} is {str(spec)[:80]!r}; expected a mapping of class_path and init_args")
    check_trusted(class_path, trusted_modules, where)
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except UserError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where} is '{class_path}', for which no module '{error.name}' is found; install its package, or "
            "put its folder on PYTHONPATH"
        ) from error
    except Exception as error:  # whatever a module does while it is imported
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


def _check_arguments(cls: type, first: Sequence[Any], given: dict[str, Any], where: str) -> None:
    signature = inspect.signature(cls)
    try:
        signature.bind(*first, **given)
    except TypeError as error:
        near = next(
            (did_you_mean(key, signature.parameters) for key in given if f"'{key}'" in str(error)), ""
        )
        raise UserError(f"{where}: {cls.__name__} cannot be built: {error}{near}") from error


def _built(value: Any, trusted_modules: Sequence[str], where: str) -> Any:
    if isinstance(value, dict) and "class_path" in value:
        return build(value, nn.Module, trusted_modules, where=where)
    return value


def _with_tuples(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with lists as tuples where the class says so: JSON and YAML have no tuples."""
    try:
        hints = typing.get_type_hints(cls.__init__)
    except Exception:  # a stranger's annotation that cannot be resolved: then nothing is known
        return arguments
    return {
        name: tuple(value) if isinstance(value, list) and _means_tuple(hints.get(name)) else value
        for name, value in arguments.items()
    }


def _means_tuple(hint: Any) -> bool:
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = [typing.get_origin(h) or h for h in (typing.get_args(hint) if is_union else (hint,))]
    return tuple in kinds and list not in kinds
