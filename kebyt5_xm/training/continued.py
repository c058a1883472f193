"""A run that goes on from a checkpoint: it needs the weights that it once started from no more."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.pretrained import Pretrained

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclass
class ContinuedBackbone(Backbone):
    """A backbone whose weights come from a checkpoint afterwards, and whose shape is the one that its run recorded.

    Args:
        folder: RUN/backbone.
    """

    folder: str = ""

    def _pretrained_fields(self, source: Pretrained | None) -> dict[str, Any]:
        return json.loads((Path(self.folder) / "config.json").read_text(encoding="utf-8"))

    def _warm_started(self) -> "T5ForConditionalGeneration":
        return self._from_scratch()


def continued(backbone: Backbone, folder: Path) -> Backbone:
    """Return the backbone of a run that goes on, if its `folder` RUN/backbone says what it started from."""
    if backbone.weights is None or not (folder / "config.json").is_file():
        return backbone
    return ContinuedBackbone(**vars(backbone), folder=str(folder))


def changes(before: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return option -> (value before, value now) of two recipes, in the order of the second."""
    old, new = dict(_flat(before, "")), dict(_flat(now, ""))
    keys = dict.fromkeys([*new, *old])
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def check_changes(found: dict[str, tuple[Any, Any]]) -> None:
    """Raise `UserError` for a change of starting weights, which a run that goes on does not read."""
    for key, (before, now) in found.items():
        words = key.split(".")
        if words[0] == "model" and words[-1] == "weights" and now is not None:
            raise UserError(
                f"{key} is {now}, and was {before} when the run was started last; a run that is continued takes its "
                "weights from the checkpoint: take the option back, or start a new run with it and another --run_dir"
            )


def told(found: dict[str, tuple[Any, Any]]) -> str:
    """Return the changes in words, without the ones that are of the place alone."""
    return "; ".join(
        f"{key}: {_word(before)} -> {_word(now)}" for key, (before, now) in found.items() if key != "run_dir"
    )


def _word(value: Any) -> str:
    return "null" if value is None else str(value)


def _flat(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{where}.{key}" if where else str(key))
    else:
        yield where, value
