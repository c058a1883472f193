"""The page of a preview: one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kebyt5_xm.commands.preview.drawn import Drawn, Piece, first_drawn, pieces
from kebyt5_xm.commands.preview.pictures import shown, without_augmentation
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report import write_page as write_html
from kebyt5_xm.evaluation.report.pages import render
from kebyt5_xm.vocabulary import PAD_ID


def write_page(
    paths: list[str],
    number: int,
    first: int,
    source: str | None,
    out: str,
    trusted_modules: Sequence[str] = (),
) -> int:
    """Write the page of `number` examples and return how many of them could not be made. Raises `UserError`."""
    from kebyt5_xm.training.from_recipes import build_data

    if number < 1 or first < 0:
        raise UserError(f"found --number {number} and --first {first}, expected at least 1 and at least 0")
    # Media as the encoders take them, not cached features.
    data = build_data(paths, trusted_modules)
    drawn = list(first_drawn(data, number, first, source))
    html = render(
        "preview.html.j2",
        language="en",
        title=f"Preview of {' + '.join(paths)}",
        recipes=" + ".join(paths),
        examples=[_shown(data, one) for one in drawn],
    )
    write_html(html, Path(out))
    return sum(one.example.skipped is not None for one in drawn)


def _shown(data: DataModule, drawn: Drawn) -> dict[str, Any]:
    """Return the variables of the template for an example."""
    example = drawn.example
    head = {"index": drawn.index, "part": drawn.part, "place": drawn.place, "skipped": example.skipped}
    if example.skipped is not None:
        return head
    figures = []
    for slot, (medium, decoded) in enumerate(zip(example.media, drawn.decoded, strict=True)):
        interface = data.interfaces[medium.modality]
        rate = interface.preprocessor.waveform_rate
        if drawn.plain is not None and not medium.prepared.equal(drawn.plain.media[slot].prepared):
            prepared = drawn.plain.media[slot].prepared
            figures += without_augmentation(interface.media, rate, prepared)
        figures += shown(interface.media, rate, medium.prepared, decoded)
    return {
        **head,
        "figures": figures,
        "num_positions": len(example.input_ids),
        "input": list(pieces(example.input_ids, drawn.sentinels, example)),
        "plain": _plain_input(drawn),
        "num_ids": len(example.target_ids),
        "target": list(pieces(example.target_ids, drawn.sentinels)),
    }


def _plain_input(drawn: Drawn) -> list[Piece]:
    """Return the input without augmentation if its text differs, else an empty list."""
    plain, ids = drawn.plain, drawn.example.input_ids
    if plain is None:
        return []
    # Slots, which are padding, may differ in number alone.
    if np.array_equal(plain.input_ids[plain.input_ids != PAD_ID], ids[ids != PAD_ID]):
        return []
    return list(pieces(plain.input_ids, drawn.sentinels, plain))
