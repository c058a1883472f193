"""`kebyt5-xm generate --file`: answers in batches, printed or appended to a file that a later call goes on with."""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from kebyt5_xm.commands.generate.answers import describe_answers, search_options
from kebyt5_xm.commands.generate.inputs import BatchInputs
from kebyt5_xm.commands.generate.output import AnswerFile
from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5

Row = dict[str, Any]


class Output(Protocol):
    """Where lines go."""

    done: set[int | str]
    """The keys of the inputs that have an answer."""

    def write(self, rows: list[Row]) -> None:
        """Write lines so that no kill takes them back."""
        ...


class Printed:
    """Prints lines."""

    def __init__(self) -> None:
        self.done: set[int | str] = set()

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            sys.stdout.write(to_json_line(row).decode())
        sys.stdout.flush()


def answer_all(
    model: CrossModalT5,
    digest: str,
    inputs: BatchInputs,
    args: argparse.Namespace,
    to_modality: Callable[[str], str],
) -> None:
    """Answer every input that has no answer yet; `digest` is the model's, from `output.model_digest`.

    An input that cannot be used gets a line with its `error`; a later call tries it again. Raises `UserError` at the
    end if there was one, and at once if the prompt does not fit the model or the output is of other settings.
    """
    interfaces = model.processor.interfaces
    inputs.check(to_modality, lambda name: interfaces[to_modality(name)].media == "audio")
    with _open_output(digest, inputs, args) as output:
        waiting = [number for number, key in enumerate(inputs.keys) if key not in output.done]
        failed: list[Row] = []
        total = len(inputs.keys)
        with tqdm(total=total, initial=total - len(waiting), unit=" answers", disable=None) as bar:
            for start in range(0, len(waiting), args.batch_size):
                numbers = waiting[start : start + args.batch_size]
                rows = _answer_batch(model, inputs, numbers, args, to_modality)
                output.write(rows)
                failed += [row for row in rows if "error" in row]
                bar.update(len(rows))
    if args.out:
        print(
            f"{total - len(failed)} answers in {args.out}, {len(waiting) - len(failed)} of them new",
            file=sys.stderr,
        )
    if failed:
        first = failed[0]
        raise UserError(
            f"{len(failed)} of {total} inputs have no answer; the first is {inputs.key} {first[inputs.key]}: "
            f"{first['error']}; correct them and give the same command again"
        )


def _open_output(digest: str, inputs: BatchInputs, args: argparse.Namespace) -> Any:
    if args.out is None:
        return nullcontext(Printed())
    names = ("max_length", "n", "num_beams", "temperature", "seed", "label", "json", "dtype")
    search = {name: getattr(args, name) for name in names}
    settings = {"model": digest, **inputs.settings, **search}
    return AnswerFile(Path(args.out), inputs.key, settings)


def _answer_batch(
    model: CrossModalT5,
    inputs: BatchInputs,
    numbers: list[int],
    args: argparse.Namespace,
    to_modality: Callable[[str], str],
) -> list[Row]:
    """Return a line for each input; those of a batch in which one cannot be used are answered one by one."""
    try:
        batch = [inputs.segments(number, to_modality) for number in numbers]
        found = describe_answers(model, batch, args, search_options(args, model.device, numbers[0]))
    except UserError as error:
        if len(numbers) == 1:
            return [{inputs.key: inputs.keys[numbers[0]], "error": str(error)}]
        return [
            row for number in numbers for row in _answer_batch(model, inputs, [number], args, to_modality)
        ]
    return [{inputs.key: inputs.keys[number], **row} for number, row in zip(numbers, found, strict=True)]
