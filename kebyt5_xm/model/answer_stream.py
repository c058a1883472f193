"""Answers as they are written: pieces of text that never break a character.

stream = model.answer("...", stream=True)
for piece in stream: print(piece, end="", flush=True)
stream.result()   # the Hypothesis
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self

from torch import Tensor

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.decoding.writing import FinishReason, WrittenRow
from kebyt5_xm.model.hypothesis import Hypothesis


class AnswerStream:
    """An iterator over pieces of text: `str` for one example, (number of the example, `str`) for a batch.

    An example that has ended gives no more pieces; `is_finished` tells. Nothing is computed between two calls of
    `next`, so the thread that iterates sets the pace. One thread at a time may use it.

    Args:
        rows: the answers, one for each example, still empty.
        blocks: takes the set of unfinished rows and yields their ids [B, n].
        score: returns the hypotheses of the rows.
    """

    def __init__(
        self,
        rows: list[WrittenRow],
        blocks: Callable[[set[int]], Iterator[Tensor]],
        score: Callable[[list[WrittenRow]], list[Hypothesis]],
        is_batch: bool,
    ) -> None:
        self._rows, self._score, self._is_batch = rows, score, is_batch
        self._unfinished = set(range(len(rows)))
        self._blocks = blocks(self._unfinished)
        self._pieces: deque[tuple[int, str]] = deque()
        self._result: list[Hypothesis] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while not self._pieces:
            self._advance()
        number, piece = self._pieces.popleft()
        return (number, piece) if self._is_batch else piece

    def is_finished(self, example: int = 0) -> bool:
        """Return whether an example's answer has ended; pieces of it may still be waiting."""
        return self._rows[example].finish_reason is not None

    def finish_reason(self, example: int = 0) -> FinishReason | None:
        """Return why an example's answer ended; None while it is written or pieces of it are waiting."""
        is_waiting = any(number == example for number, _ in self._pieces)
        return None if is_waiting else self._rows[example].finish_reason

    def cancel(self, example: int = 0) -> None:
        """End an example's answer where it is; the others go on, and decoding stops when none is left."""
        if not 0 <= example < len(self._rows):
            raise UserError(
                f"found example {example}, expected 0 to {len(self._rows) - 1}, its place in the batch"
            )
        self._rows[example].end("cancelled")
        self._unfinished.discard(example)
        self._pieces = deque(piece for piece in self._pieces if piece[0] != example)

    def close(self) -> None:
        """End all answers where they are."""
        for example in range(len(self._rows)):
            self.cancel(example)
        self._blocks = iter(())

    def result(self) -> Any:
        """Return the `Hypothesis` of one example, or the list of a batch, after writing what is not yet written.

        Pieces that were not read by then are dropped.
        """
        for _ in self:
            pass
        if self._result is None:
            self._result = self._score(self._rows)
        return self._result if self._is_batch else self._result[0]

    def _advance(self) -> None:
        """Write some more ids; raise StopIteration if all answers have ended."""
        add_block(self._rows, next(self._blocks), self._unfinished)
        for number, row in enumerate(self._rows):
            if row.finish_reason != "cancelled" and (piece := row.take()):
                self._pieces.append((number, piece))


def write_rows(rows: list[WrittenRow], blocks: Callable[[set[int]], Iterator[Tensor]]) -> None:
    """Write the rows to their ends."""
    unfinished = set(range(len(rows)))
    for block in blocks(unfinished):
        add_block(rows, block, unfinished)
        if not unfinished:
            return


def add_block(rows: list[WrittenRow], block: Tensor, unfinished: set[int]) -> None:
    """Append a block [B, n] of ids to the rows; those that have ended leave `unfinished`."""
    for number, (row, ids) in enumerate(zip(rows, block.tolist(), strict=True)):
        row.add(ids)
        if row.finish_reason is not None:
            unfinished.discard(number)
