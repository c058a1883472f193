"""The held-out parts of a run's sources, each known by its number."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.loading.micro_batches import ValidationMicroBatches
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.sources.source import Part, Selection, Source
from kebyt5_xm.vocabulary import Sentinels

MIN_TARGET = 8
"""Shorter targets count as this many ids when the longest answer is chosen. Our own choice."""


class Validation:
    """The held-out parts of the sources. Every method takes the number of a part in `parts`."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    @property
    def parts(self) -> list[Part]:
        return self._mixture.parts

    @cached_property
    def names(self) -> list[str]:
        """The names of the parts, as they stand in logs behind `val/METRIC/`."""
        return self._mixture.names

    def __len__(self) -> int:
        return len(self.parts)

    def source(self, number: int) -> Source:
        """Return the part's source."""
        return self._mixture.source(number)

    def prompts(self, number: int) -> PromptTable | None:
        """Return the table behind the part; None if its source shows no prompts."""
        return self.source(number).prompts(held_out=True, part=self._mixture.part_in_source[number])

    def example(self, number: int, row: int) -> Example:
        """Return the example of a row of the part."""
        part, seed = self._mixture.part_in_source[number], self._mixture.seed
        return self.source(number).load(Selection.rows(part, row, row + 1, held_out=True, seed=seed))[0]

    def references(self, number: int, row: int) -> tuple[str, ...]:
        """Return the texts that are right answers to a row of the part. Raises `BadSample` if there are none."""
        return self.source(number).references(self._mixture.part_in_source[number], row)

    def place(self, number: int, row: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of a row of the part."""
        return self._mixture.place(number, row)

    def sentinels(self, number: int) -> Sentinels:
        """Return the sentinel convention in which the part's ids are to be shown."""
        return self.source(number).sentinels

    def micro_batches(
        self, number: int, micro_batch_size: int, rank: int = 0, world_size: int = 1
    ) -> ValidationMicroBatches:
        """Return the rows of the part that one rank validates on, as a dataset of micro-batches."""
        num_rows = self.parts[number].num_rows
        return ValidationMicroBatches(self._mixture, number, num_rows, micro_batch_size, rank, world_size)

    def first(self, number: int, num_rows: int) -> Batch:
        """Return the first `num_rows` examples of the part, or all if it has fewer, as one batch."""
        rows = min(num_rows, self.parts[number].num_rows)
        return ValidationMicroBatches(self._mixture, number, rows, rows, rank=0, world_size=1)[0]

    def answer_length(self, number: int) -> int:
        """Return the longest answer in ids: twice the longest target.

        The limit matters early in training, when the model does not write an end of sequence yet.
        """
        return 2 * max(MIN_TARGET, int(self._lengths(number)[:, 1].max(initial=0)))

    def impossible(self, number: int) -> list[int]:
        """Return the rows of the part that are known to give no example, too long ones among them."""
        return np.flatnonzero(self._lengths(number)[:, 1] == 0).tolist()

    def left_out(self) -> list[str]:
        """Return a log line for every part whose metrics count examples that cannot be made as wrong answers."""
        lines = []
        for number, name in enumerate(self.names):
            source = self.source(number)
            if source.metrics and source.count_left_out and (rows := self.impossible(number)):
                total = self.parts[number].num_rows
                lines.append(f"{name}: {len(rows)} of {total} held-out examples left out, counted as wrong")
        return lines

    def _lengths(self, number: int) -> NDArray[np.int64]:
        return self.source(number).lengths(self._selection(number))

    def raw_bytes(self, number: int) -> NDArray[np.uint8]:
        """Return the raw bytes [row, bytes] of the part; empty if its targets are not the bytes of a corpus."""
        selection = self._selection(number)
        return self.source(number).raw_bytes(selection.part, selection.row)

    def _selection(self, number: int) -> Selection:
        part, num_rows = self._mixture.part_in_source[number], self.parts[number].num_rows
        return Selection.rows(part, 0, num_rows, held_out=True, seed=self._mixture.seed)
