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

from kebyt5_xm.errors import UserError, did_you_mean

TRUSTED = ("kebyt5_xm", "encoders")
"""Packages whose classes are always built; their submodules are meant too."""

T = TypeVar("T")


def build(
    spec: Any, base: type[T], trusted_modules: Sequence[str] = (), *, where: str, first: Sequence[Any] = ()
) -> T:
    """Return the instance that `spec` describes.

    Args:
        spec: {class_path, init_args}, as in a recipe; such a mapping among the arguments is built as well.
        base: what the class must be a subclass of.
        trusted_modules: packages beside `TRUSTED` that may be imported.
        where: what errors call the place where `spec` stands.
        first: positional arguments that come before those of `spec`.

    Raises `UserError` for a class that is not trusted, is not to be had or is no `base`, and for arguments that
    it does not take.
    """
    cls = _find(spec, base, trusted_modules, where)
    given = spec.get("init_args") or {}
    _check_arguments(cls, first, given, where)
    arguments = {key: _built(value, trusted_modules, f"{where}.{key}") for key, value in given.items()}
    return cls(*first, **_with_tuples(cls, arguments))


def check_trusted(class_path: str, trusted_modules: Sequence[str], where: str) -> None:
    """Raise `UserError` unless `class_path` lies in a trusted package."""
    if isinstance(trusted_modules, str):
        raise UserError(f"found trusted_modules='{trusted_modules}', expected a list: ['{trusted_modules}']")
    if not any(class_path.startswith(f"{name}.") for name in (*TRUSTED, *trusted_modules)):
        package = class_path.partition(".")[0]
        raise UserError(
            f"{where} is '{class_path}', and '{package}' is not trusted, so it was not imported; expected a class "
            f"of {' or '.join(TRUSTED)}. If you trust its code, pass trusted_modules=['{package}'] (--trust "
            f"{package} in a command)"
        )


def _find(spec: Any, base: type[T], trusted_modules: Sequence[str], where: str) -> type[T]:
    class_path = spec.get("class_path") if isinstance(spec, dict) else None
    if not isinstance(class_path, str) or set(spec) - {"class_path", "init_args"}:
        raise UserError(f"{where} is {str(spec)[:80]!r}; expected a mapping of class_path and init_args")
    check_trusted(class_path, trusted_modules, where)
    module_name, _, name = class_path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{where} is '{class_path}', for which no module '{error.name}' is found; install its package, or "
            "put its folder on PYTHONPATH"
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
        return build(value, object, trusted_modules, where=where)
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
