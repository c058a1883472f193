"""Finds a learning rate that a recipe from weights has inherited from a recipe that trains from scratch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kebyt5_xm.training import recipes


@dataclass(frozen=True)
class InheritedRate:
    """`rate`, as written in the recipe `source`, trains from scratch there; `overlay` starts from `weights`."""

    rate: str
    source: str
    overlay: str
    weights: str

    def __str__(self) -> str:
        return (
            f"the learning rate {self.rate} is of '{self.source}', which trains from scratch, but '{self.overlay}' "
            f"starts from the weights {self.weights}, which such a rate may destroy; set "
            "model.optimizer.init_args.lr (`kebyt5-xm doctor` with the same -c recommends one)"
        )


def find_inherited_rate(paths: Sequence[str]) -> InheritedRate | None:
    """Return the rate that `paths`, merged in order, keep from a file without `model.backbone.weights`."""
    merged: recipes.Recipe = {}
    written: tuple[str, str, bool] | None = None  # rate, its file, whether that trains from scratch
    started: tuple[str, str] | None = None  # weights, their file
    for path in paths:
        recipe = recipes.load(path)
        merged = recipes.overlay(merged, recipe)
        rate, weights = (_get(merged, "optimizer", "init_args", "lr"), _get(merged, "backbone", "weights"))
        if _get(recipe, "backbone", "weights") is not None:
            started = str(weights), path
        if rate is None:
            written = None
        elif written is None or _get(recipe, "optimizer", "init_args", "lr") is not None:
            written = str(rate), path, weights is None
    if written is None or started is None or _get(merged, "backbone", "weights") is None or not written[2]:
        return None
    return InheritedRate(written[0], written[1], started[1], started[0])


def _get(recipe: Any, *keys: str) -> Any:
    """Return the value under `model`, None where there is none."""
    for key in ("model", *keys):
        recipe = recipe.get(key) if isinstance(recipe, dict) else None
    return recipe
