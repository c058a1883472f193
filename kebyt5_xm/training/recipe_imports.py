"""Limits what recipes may import while they are read; see `kebyt5_xm.trust` for the rules."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings

from kebyt5_xm import leave_working_folder
from kebyt5_xm.training.recipes import load
from kebyt5_xm.trust import (
    LIBRARIES,
    TRUSTED,
    check_encoders,
    check_trusted,
    find_class_paths,
    make_importable,
    search_working_folder_last,
)

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_run_recipe(path: str | Path) -> bool:
    """Say whether a recipe is that of a run, which may be third-party."""
    path = Path(path)
    return path.name == "config.yaml" or (path.parent / "checkpoints").is_dir()


@contextmanager
def limit_imports(
    paths: Sequence[str], trusted_modules: Sequence[str] = (), words: Sequence[str] = ()
) -> Iterator[None]:
    """Limit what the recipes at `paths` may import, before and while jsonargparse reads them.

    `words` are the arguments of the command line. Classes that they or the user's recipes name may be imported. The
    working folder stays in `sys.path` afterwards, since data workers import these classes too. Raises `UserError` for
    the recipe of a run that names a class of a package that is not trusted.
    """
    run_recipes = [path for path in paths if is_run_recipe(path)]
    for path in run_recipes:
        check_trusted(load(path), trusted_modules)
    user_recipes = [path for path in paths if path not in run_recipes]
    leave_working_folder()
    if user_recipes or not paths:
        search_working_folder_last()
    make_importable(trusted_modules)
    if any(
        str(name).startswith("encoders.") for path in user_recipes for _, name in find_class_paths(load(path))
    ):
        check_encoders()
    if not run_recipes:
        yield
        return
    named = {match[0].partition(".")[0] for word in words for match in _DOTTED.finditer(word)}
    for path in user_recipes:
        named |= {match[0].partition(".")[0] for match in _DOTTED.finditer(Path(path).read_text("utf-8"))}
    with _only_imports_of({*TRUSTED, *LIBRARIES, *trusted_modules, *named}):
        yield


@contextmanager
def _only_imports_of(allowed: Iterable[str]) -> Iterator[None]:
    """Let jsonargparse import only from these packages, in whatever form a value names a class."""
    before = dict(parsing_settings)
    set_parsing_settings(
        import_path_denylist=["*"],
        import_path_allowlist=sorted(name for name in allowed if name != "jsonargparse"),
        instantiate_subclass_spec_in_any=False,
    )
    try:
        yield
    finally:
        parsing_settings.update(before)
