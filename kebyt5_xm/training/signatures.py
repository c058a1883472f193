"""Finds the class of a class path and its options by reading source files, without imports.

Importing torch or Lightning takes seconds and runs code; a misspelt option should be reported before. Whatever the
source does not show with certainty (`**kwargs`, a star import, a compiled module) is left to the parser.
"""

import ast
import importlib.machinery
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MAX_HOPS = 20
"""Imports that are followed from one module to the next; more than these are a circle."""


@dataclass(frozen=True)
class Missing:
    """Why a class path cannot be imported. `known` are the names at the place where `name` is missing."""

    cause: str
    name: str = ""
    known: tuple[str, ...] = ()


def find_missing(class_path: str) -> Missing | None:
    """Return why a class path cannot be imported; None if it can, or if the source does not show it."""
    found = _find_definition(class_path)
    return found if isinstance(found, Missing) else None


def read_options(class_path: str) -> tuple[str, ...] | None:
    """Return the names of the arguments of a class or function; None if the source does not show them."""
    found = _find_definition(class_path)
    return None if found is None or isinstance(found, Missing) else _read_options(*found, MAX_HOPS)


def _find_definition(class_path: str) -> tuple[str, ast.stmt] | Missing | None:
    """Return the module and the definition of a class path; None if the source does not show them."""
    module, _, name = class_path.rpartition(".")
    return _look_up(module, name, MAX_HOPS) if module else None


def _look_up(module: str, name: str, hops: int) -> tuple[str, ast.stmt] | Missing | None:
    spec = _find_spec(module)
    if isinstance(spec, Missing):
        return spec
    tree = _parse(spec.origin) if spec is not None else None
    if tree is None or not hops:
        return None
    names, is_open = _read_names(tree, is_ours=module.partition(".")[0] == "kebyt5_xm")
    found = names.get(name)
    if isinstance(found, ast.ImportFrom):
        source = _source_module(
            found, module, is_package=spec is not None and spec.submodule_search_locations
        )
        original = next(alias.name for alias in found.names if (alias.asname or alias.name) == name)
        target = _look_up(source, original, hops - 1)
        # The name may be a module, or defined at run time.
        return None if isinstance(target, Missing) else target
    if isinstance(found, ast.ClassDef | ast.FunctionDef):
        return module, found
    if found is not None or is_open or not isinstance(_find_spec(f"{module}.{name}"), Missing):
        return None
    return Missing(f"module '{module}' has no attribute '{name}'", name, tuple(names))


@cache
def _find_spec(module: str) -> importlib.machinery.ModuleSpec | Missing | None:
    """Return the spec of a module; None if it cannot be found without imports."""
    top, *rest = module.split(".")
    here = Path.cwd() / top
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        if here.is_dir() or here.with_suffix(".py").is_file():
            return None  # in the working folder; `recipe_imports` decides whether it may be imported
        return Missing(f"No module named '{top}'")
    for number, name in enumerate(rest, 1):
        folders = spec.submodule_search_locations
        path = ".".join((top, *rest[:number]))
        if folders is None:
            return None  # a class within a module
        within = importlib.machinery.PathFinder.find_spec(path, list(folders))
        if within is None:
            tree = _parse(spec.origin)
            names, is_open = ({}, True) if tree is None else _read_names(tree, is_ours=top == "kebyt5_xm")
            if is_open or name in names:
                return None
            return Missing(f"No module named '{path}'", name, _list_modules(list(folders)))
        spec = within
    return spec


def _list_modules(folders: list[str]) -> tuple[str, ...]:
    found = {p for folder in folders for p in Path(folder).glob("*") if p.suffix == ".py" or p.is_dir()}
    return tuple(sorted({p.stem for p in found} - {"__init__", "__pycache__"}))


@cache
def _parse(origin: str | None) -> ast.Module | None:
    if origin is None or not origin.endswith(".py"):
        return None
    try:
        return ast.parse(Path(origin).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _read_names(tree: ast.Module, is_ours: bool = False) -> tuple[dict[str, ast.stmt], bool]:
    """Return the names that a module defines, and whether it may have others. This project's modules have none."""
    names: dict[str, ast.stmt] = {}
    is_open = False
    statements: list[ast.stmt] = list(tree.body)
    while statements:
        statement = statements.pop()
        for block in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                statements += getattr(statement, block, [])
        for handler in getattr(statement, "handlers", []):
            statements += handler.body
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_repeated = statement.name in names  # for two versions of a library, or @overload
            names[statement.name] = ast.Pass() if is_repeated else statement
            is_open |= statement.name == "__getattr__" and not is_ours
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            for alias in statement.names:
                is_open |= alias.name == "*"
                names.setdefault(alias.asname or alias.name.partition(".")[0], statement)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.setdefault(node.id, statement)
                is_open |= isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
                    "globals",
                    "setattr",
                )
    return names, is_open


def _source_module(statement: ast.ImportFrom, module: str, is_package: object) -> str:
    if not statement.level:
        return statement.module or ""
    words = module.split(".")
    above = words[: len(words) - statement.level + (1 if is_package else 0)]
    return ".".join([*above, *([statement.module] if statement.module else [])])


def _read_options(module: str, found: ast.stmt, hops: int) -> tuple[str, ...] | None:
    if isinstance(found, ast.FunctionDef):
        return _argument_names(found.args)
    if not isinstance(found, ast.ClassDef) or found.keywords or not hops:
        return None
    decorators = [ast.unparse(d).partition("(")[0].rpartition(".")[2] for d in found.decorator_list]
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            arguments = _argument_names(statement.args)
            return arguments[1:] if arguments else None
    inherited: list[tuple[str, ...] | None] = []
    for base in found.bases:
        if isinstance(base, ast.Name) and base.id in ("ABC", "object"):
            continue
        definition = _look_up(module, base.id, hops - 1) if isinstance(base, ast.Name) else None
        inherited.append(
            None
            if definition is None or isinstance(definition, Missing)
            else _read_options(*definition, hops - 1)
        )
    if None in inherited or decorators not in ([], ["dataclass"]):
        return None
    above = tuple(name for names in inherited[:1] for name in names or ())
    if decorators:
        fields = [
            s.target.id for s in found.body if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
        ]
        return tuple(dict.fromkeys((*above, *fields)))
    return above


def _argument_names(arguments: ast.arguments) -> tuple[str, ...] | None:
    if arguments.kwarg is not None or arguments.vararg is not None:
        return None
    return tuple(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
