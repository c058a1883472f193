"""The first examples that a run draws, with the recordings in their slots."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.opening import open_audio
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.data.sources.template import MediaSegment
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.vocabulary import EOS_ID, MAX_SENTINELS, Sentinels, render, sentinel_ids

DRAWN_AT_ONCE = 256
MAX_DRAWN = 1 << 20
"""The search for examples of one source ends after so many draws."""


@dataclass(frozen=True)
class Piece:
    """A piece of an input or target: readable text, or the name of a sentinel, slot or end of sequence."""

    kind: Literal["text", "sentinel", "slot", "end"]
    text: str


@dataclass(frozen=True)
class Drawn:
    """An example of the run. `decoded` has an entry for each slot: (waveform, rate) of a recording, else None.

    `plain` is the example of the same row without augmentation; None if the source does not augment.
    """

    index: int
    part: str
    place: str
    example: Example
    decoded: tuple[Any, ...]
    sentinels: Sentinels
    plain: Example | None = None


def first_drawn(data: DataModule, number: int, first: int, source: str | None) -> Iterator[Drawn]:
    """Yield `number` examples from example `first` of the run on, all from `source` if it is given.

    Raises `UserError` for an unknown source, and if no example was found.
    """
    names = list(data.sources)
    if source is not None and source not in names:
        raise UserError(
            f"found no source '{source}', expected one of {', '.join(names)}{did_you_mean(source, names)}"
        )
    wanted, start = number, first
    while wanted and start < first + MAX_DRAWN:
        draws = data.cursor.plan.rows(start, start + DRAWN_AT_ONCE)
        for i in range(len(draws)):
            part = int(draws.part[i])
            if wanted and source in (None, names[data.training.source_of_part[part]]):
                selection = Selection(
                    np.asarray([data.training.part_in_source[part]]),
                    draws.row[i : i + 1],
                    draws.index[i : i + 1],
                    data.seed,
                    held_out=False,
                )
                yield _drawn(data, part, selection)
                wanted -= 1
        start += len(draws)
        if len(draws) < DRAWN_AT_ONCE:  # the run has no more
            break
    if wanted == number:
        raise UserError(
            f"found no example{f' of {source!r}' if source else ''} among {start - first} draws from example {first} "
            "on; expected a smaller --first, or a source of more weight"
        )


def _drawn(data: DataModule, part: int, selection: Selection) -> Drawn:
    index, row = int(selection.index[0]), int(selection.row[0])
    source, name = data.training.source(part), data.training.names[part]
    prompts = source.prompts(held_out=False, part=data.training.part_in_source[part])
    path, line = data.training.place(part, row)
    place = f"chunk {row}" if source.is_text else f"{path}:{line}"
    decoded, plain = [], None
    changes = source.changes(selection.seed, index)
    if prompts is None:
        example = source.load(selection)[0]
    else:
        try:
            example = prompts.example(row, changes)
            plain = prompts.example(row) if changes is not None else None
            for segment in prompts.segments(row):
                if isinstance(segment, MediaSegment):
                    is_audio = prompts.interfaces[segment.modality].media == "audio"
                    readable = prompts.readable(segment.reference)
                    heard = open_audio(readable, prompts.limits) if is_audio else None
                    if changes is not None and heard is not None:
                        heard = changes.medium(len(decoded), segment.modality, heard)
                    decoded.append(heard)
        except BadSample as error:
            example, decoded = prompts.skipped(row, error), []
    return Drawn(index, name, place, example, tuple(decoded), source.sentinels, plain)


def pieces(ids: NDArray[np.int16], sentinels: Sentinels, example: Example | None = None) -> Iterator[Piece]:
    """Yield `ids` [n] as pieces. Give `example` if they are its input: its slots then become pieces too."""
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
