"""Data: stores, sources, the plan and the data module.

The names a recipe uses are importable from here (`kebyt5_xm.data.Denoising`), but are loaded only when asked
for, so that preparing a corpus never imports torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kebyt5_xm.data.datamodule import DataModule
    from kebyt5_xm.data.inputs import Example
    from kebyt5_xm.data.sources.denoise import Denoising
    from kebyt5_xm.data.sources.manifest_source import Manifest
    from kebyt5_xm.data.sources.source import Part, Selection, Source
    from kebyt5_xm.data.text.store import Store
    from kebyt5_xm.data.text.store_writer import StoreWriter

_HOMES = {
    "DataModule": "datamodule",
    "Denoising": "sources.denoise",
    "Example": "inputs",
    "Manifest": "sources.manifest_source",
    "Part": "sources.source",
    "Selection": "sources.source",
    "Source": "sources.source",
    "Store": "text.store",
    "StoreWriter": "text.store_writer",
}

__all__ = [
    "DataModule",
    "Denoising",
    "Example",
    "Manifest",
    "Part",
    "Selection",
    "Source",
    "Store",
    "StoreWriter",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
