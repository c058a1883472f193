"""A cross-modal extension framework for a Korean-enhanced byte-level T5.

This module is imported first, possibly while the working folder precedes Python's own modules on the path. So it
imports only modules that Python has loaded already.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds both packages."""


def register_encoders() -> None:
    """Import `encoders` from the folder next to `kebyt5_xm`, so that no other package of that name is imported.

    A package `encoders` that is imported already stays; `kebyt5_xm.trust` refuses it when encoders are needed.
    """
    folder = os.path.join(HOME, "encoders")
    file = os.path.join(folder, "__init__.py")
    if "encoders" in sys.modules or not os.path.isfile(file):
        return
    import importlib.util

    spec = importlib.util.spec_from_file_location("encoders", file, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["encoders"] = module
    spec.loader.exec_module(module)


def leave_working_folder() -> list[tuple[int, str]]:
    """Remove the working folder from Python's path; return (position, entry) of each removed entry.

    `python -m` and `python -c` put it first, and an empty entry of PYTHONPATH means it too.
    """
    here = os.path.realpath(os.getcwd())
    if here == os.path.realpath(HOME):  # a checkout of this project
        return []
    removed = [(number, entry) for number, entry in enumerate(sys.path) if os.path.realpath(entry) == here]
    for _, entry in removed:
        sys.path.remove(entry)
    return removed


register_encoders()
