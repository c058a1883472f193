"""The model: T5, the splice, weights in and out, runs and checkpoints, the processor, decoding.

`CrossModalT5` is importable from here, but loaded on first use: reading a run needs no transformers.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5

__all__ = ["CrossModalT5"]


def __getattr__(name: str) -> object:
    if name == "CrossModalT5":
        from kebyt5_xm.model.cross_modal import CrossModalT5

        return CrossModalT5
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
