"""The loop of commands that answer many inputs: which ones wait, in which batches, and what is said at the end."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tqdm import tqdm

from kebyt5_xm.errors import UserError

Row = dict[str, Any]
Answer = Callable[[Sequence[int]], list[Row]]
"""Numbers of inputs -> a line for each. Raises `UserError` if one of them cannot be used."""


class Output(Protocol):
    """Where lines go."""

    done: set[int | str]
    """The keys of the inputs that have an answer."""

    def write(self, rows: list[Row]) -> None:
        """Write lines so that no kill takes them back."""
        ...


class Inputs(Protocol):
    """Inputs with a key each, whose name in a line is `key`."""

    @property
    def key(self) -> str: ...
    @property
    def keys(self) -> Sequence[int | str]: ...


def answer_waiting(
    output: Output, inputs: Inputs, batch_size: int, answer: Answer, whole_batches: bool = False
) -> tuple[int, list[Row]]:
    """Answer and write every input that has no answer yet; return how many were waiting, and the failed lines.

    The inputs of a batch in which one cannot be used are answered one by one; that one gets a line with its `error`.
    With `whole_batches`, an input is always answered together with the same others, as padding changes the last
    digits of a score: so after a kill the file gets the same bytes.
    """
    waiting = [number for number, key in enumerate(inputs.keys) if key not in output.done]
    failed: list[Row] = []
    total = len(inputs.keys)
    among = range(total) if whole_batches else waiting
    missing = set(waiting)
    with tqdm(total=total, initial=total - len(waiting), unit=" answers", disable=None) as bar:
        for start in range(0, len(among), batch_size):
            numbers = among[start : start + batch_size]
            if missing.isdisjoint(numbers):
                continue
            rows = _answer_batch(inputs, numbers, answer)
            rows = [row for number, row in zip(numbers, rows, strict=True) if number in missing]
            output.write(rows)
            failed += [row for row in rows if "error" in row]
            bar.update(len(rows))
    return len(waiting), failed


def report_end(inputs: Inputs, out: str | None, num_waiting: int, failed: Sequence[Row]) -> None:
    """Say on stderr how many answers `out` has. Raises `UserError` if an input has none."""
    total = len(inputs.keys)
    if out:
        count = f"{total - len(failed)} answers in {out}, {num_waiting - len(failed)} of them new"
        print(count, file=sys.stderr)
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {total} inputs have no answer; the first is {inputs.key} {first[inputs.key]}: "
            f"{first['error']}; correct them and give the same command again"
        )


def _answer_batch(inputs: Inputs, numbers: Sequence[int], answer: Answer) -> list[Row]:
    try:
        return answer(numbers)
    except UserError as error:
        if len(numbers) == 1:
            return [{inputs.key: inputs.keys[numbers[0]], "error": str(error)}]
        return [row for number in numbers for row in _answer_batch(inputs, [number], answer)]
