"""A cross-modal extension framework for a Korean-enhanced byte-level T5.

Imported first of all, at times with the working folder in front of Python's own modules. So nothing is imported here
that Python has not imported already.
"""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds both packages."""


def register_encoders() -> None:
    """Import `encoders` from beside `kebyt5_xm`, so that no other folder of that name is taken for it.

    One that is imported already stays; `kebyt5_xm.trust` refuses it where encoders are needed.
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
    """Take the working folder off Python's path; return the places and entries that were taken.

    `python -m` and `python -c` put it first, and an empty part of PYTHONPATH means it too.
    """
    here = os.path.realpath(os.getcwd())
    if here == os.path.realpath(HOME):  # a checkout: what lies here is ours
        return []
    taken = [(number, entry) for number, entry in enumerate(sys.path) if os.path.realpath(entry) == here]
    for _, entry in taken:
        sys.path.remove(entry)
    return taken


register_encoders()
