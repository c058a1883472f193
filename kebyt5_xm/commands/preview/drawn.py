"""The examples that a run draws first, with the media behind their slots."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.sources.source import Selection, Source
from kebyt5_xm.data.sources.template import Slot
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.vocabulary import EOS_ID, MAX_SENTINELS, Sentinels, render, sentinel_ids

DRAWN_AT_ONCE = 256
MOST_DRAWN = 1 << 20
"""Draws looked through for examples of one source before giving up."""


@dataclass(frozen=True)
class Piece:
    """A stretch of an input or target: readable text, or the name of a sentinel, of a slot, or of the end."""

    kind: Literal["text", "sentinel", "slot", "end"]
    text: str


@dataclass(frozen=True)
class Drawn:
    """An example of the run; for each of its recordings `decoded` has waveform and rate, to be played."""

    index: int
    part: str
    place: str
    example: Example
    decoded: tuple[Any, ...]
    sentinels: Sentinels


def first_drawn(data: DataModule, number: int, first: int, source: str | None) -> Iterator[Drawn]:
    """Yield `number` examples from example `first` of the run on, of one source only if it is named.

    Raises `UserError` for an unknown source, and if the run has no so many.
    """
    names = list(data.sources)
    if source is not None and source not in names:
        raise UserError(
            f"found no source '{source}', expected one of {', '.join(names)}{did_you_mean(source, names)}"
        )
    wanted, start = number, first
    while wanted and start < first + MOST_DRAWN:
        draws = data.course.plan.rows(start, start + DRAWN_AT_ONCE)
        for i in range(len(draws)):
            part = int(draws.part[i])
            of = data.training.source_of_part[part]
            if wanted and source in (None, names[of]):
                selection = Selection(
                    np.asarray([data.training.part_in_source[part]]),
                    draws.row[i : i + 1],
                    draws.index[i : i + 1],
                    data.seed,
                    held_out=False,
                )
                yield _drawn(data.training.source(part), data.training.names[part], selection)
                wanted -= 1
        start += len(draws)
        if len(draws) < DRAWN_AT_ONCE:  # the run has no more
            break
    if wanted == number:
        raise UserError(
            f"found no example{f' of {source!r}' if source else ''} among {start - first} draws from example {first} "
            "on; expected a smaller --first, or a source of more weight"
        )


def _drawn(source: Source, part: str, selection: Selection) -> Drawn:
    index, row = int(selection.index[0]), int(selection.row[0])
    sentinels = source.sentinels
    if not isinstance(source, Manifest):
        return Drawn(index, part, f"chunk {row}", source.load(selection)[0], (), sentinels)
    path, line = source.place(row)
    decoded = []
    try:
        example = source.example(source.rows, row)
        for segment in source.prompt.render(source.rows.row(row)):
            if isinstance(segment, Slot):
                heard = source.maker.interfaces[segment.modality].media == "audio"
                readable = source.readable(segment.reference, source.rows)
                decoded.append(open_audio(readable, source.limits) if heard else None)
    except BadSample as error:
        return Drawn(index, part, f"{path}:{line}", source.skipped(source.rows, row, error), (), sentinels)
    return Drawn(index, part, f"{path}:{line}", example, tuple(decoded), sentinels)


def pieces(ids: NDArray[np.int16], sentinels: Sentinels, example: Example | None = None) -> Iterator[Piece]:
    """Yield `ids` [n] as pieces; the slots are those of `example`, whose input they then are."""
    numbers = {int(id_): n for n, id_ in enumerate(sentinel_ids(sentinels, MAX_SENTINELS[sentinels]))}
    starts = {medium.start: medium for medium in example.media} if example else {}
    position = begun = 0
    while position < len(ids):
        id_ = int(ids[position])
        marked = position in starts or id_ in numbers or id_ == EOS_ID
        if marked and begun < position:
            yield Piece("text", render(ids[begun:position], sentinels))
        if position in starts:
            medium = starts[position]
            yield Piece("slot", f"{medium.modality} · {medium.count} slot{'s' * (medium.count > 1)}")
            position += medium.count
        else:
            if id_ in numbers:
                yield Piece("sentinel", str(numbers[id_]))
            elif id_ == EOS_ID:
                yield Piece("end", "end")
            position += 1
        if marked:
            begun = position
    if begun < len(ids):
        yield Piece("text", render(ids[begun:], sentinels))
