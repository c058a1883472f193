"""What a teacher is asked about each row: of the command line, or of a source of a run's recipe."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kebyt5_xm.commands.prompt import unescape
from kebyt5_xm.data.sources.excerpt_columns import ExcerptColumns
from kebyt5_xm.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Question:
    """A prompt in the language of recipes, the labels to choose among (none for free text), and excerpts."""

    prompt: str
    labels: tuple[str, ...]
    excerpts: ExcerptColumns | None

    @classmethod
    def of(cls, args: argparse.Namespace) -> Self:
        """Return what the arguments of `kebyt5-xm teach` say. Raises `UserError`."""
        if args.source is None:
            excerpts = ExcerptColumns.of(args.offset, args.duration)
            return cls(unescape(args.prompt), tuple(args.label), excerpts)
        init_args = _read_source(args.model, args.source)
        labels = init_args.get("labels") or ()
        words = labels.values() if isinstance(labels, dict) else labels
        excerpts = ExcerptColumns.of(init_args.get("offset"), init_args.get("duration"))
        return cls(init_args["prompt"], tuple(map(str, words)), excerpts)


def _read_source(model: str, name: str) -> dict[str, Any]:
    """Return the `init_args` of a source with a prompt in the recipe of a run, or of a checkpoint's run."""
    from kebyt5_xm.model.runs.run import resolve

    path = Path(model).expanduser()
    if not (path.exists() and ((path / "config.yaml").is_file() or path.name.endswith(".ckpt"))):
        raise UserError(
            f"found --source {name} with '{model}', expected a run, whose recipe has sources; give --prompt"
        )
    sources = (resolve(path).config.get("data") or {}).get("sources") or {}
    blocks = {key: (block or {}).get("init_args") or {} for key, block in sources.items()}
    asking = [key for key, init_args in blocks.items() if isinstance(init_args.get("prompt"), str)]
    if name not in asking:
        known = ", ".join(asking) or "none with a prompt"
        raise UserError(
            f"found no source '{name}' with a prompt in '{model}', expected one of: {known}"
            f"{did_you_mean(name, asking)}"
        )
    return blocks[name]
