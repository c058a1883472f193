"""What recipes may import while they are read: see `kebyt5_xm.trust` for the rule."""

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
    find_class_paths,
    held_to_trust,
    make_importable,
    search_working_folder_last,
)

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_of_run(path: str | Path) -> bool:
    """Say whether a recipe is one that a run keeps, and so perhaps a stranger's."""
    path = Path(path)
    return path.name == "config.yaml" or (path.parent / "checkpoints").is_dir()


@contextmanager
def recipes_imports(
    paths: Sequence[str], trusted_modules: Sequence[str] = (), words: Sequence[str] = ()
) -> Iterator[None]:
    """Hold what the recipes at `paths` may import, before and while jsonargparse reads them.

    `words` are the command line's, which are the user's own as a recipe is. The working folder stays where it is
    put, since data workers import what the recipe names. Raises `UserError` for a run's recipe that names a class
    outside what is trusted.
    """
    of_runs = [path for path in paths if is_of_run(path)]
    for path in of_runs:
        held_to_trust(load(path), trusted_modules)
    own = [path for path in paths if path not in of_runs]
    leave_working_folder()
    if own or not paths:
        search_working_folder_last()
    make_importable(trusted_modules)
    if any(str(name).startswith("encoders.") for path in own for _, name in find_class_paths(load(path))):
        check_encoders()
    if not of_runs:
        yield
        return
    named = {match[0].partition(".")[0] for word in words for match in _DOTTED.finditer(word)}
    for path in own:
        named |= {match[0].partition(".")[0] for match in _DOTTED.finditer(Path(path).read_text("utf-8"))}
    with _only_imports_of({*TRUSTED, *LIBRARIES, *trusted_modules, *named}):
        yield


@contextmanager
def _only_imports_of(allowed: Iterable[str]) -> Iterator[None]:
    """Let jsonargparse import nothing else that a value names, in whichever of its forms it is named."""
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
