"""`kebyt5-xm generate --file`: answers in batches, printed or appended to a file that a later call goes on with."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.generate.answers import describe_answers, search_options
from kebyt5_xm.commands.generate.inputs import BatchInputs
from kebyt5_xm.commands.generate.output import AnswerFile
from kebyt5_xm.commands.generate.waiting import Row, answer_waiting, report_end
from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.model.cross_modal import CrossModalT5


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

    def answer(numbers: Sequence[int]) -> list[Row]:
        batch = [inputs.segments(number, to_modality) for number in numbers]
        found = describe_answers(model, batch, args, search_options(args, model.device, numbers[0]))
        return [{inputs.key: inputs.keys[number], **row} for number, row in zip(numbers, found, strict=True)]

    with _open_output(digest, inputs, args) as output:
        num_waiting, failed = answer_waiting(output, inputs, args.batch_size, answer)
    report_end(inputs, args.out, num_waiting, failed)


def _open_output(digest: str, inputs: BatchInputs, args: argparse.Namespace) -> Any:
    if args.out is None:
        return nullcontext(Printed())
    names = ("max_length", "n", "num_beams", "temperature", "seed", "label", "json", "dtype")
    search = {name: getattr(args, name) for name in names}
    settings = {"model": digest, **inputs.settings, **search}
    return AnswerFile(Path(args.out), inputs.key, settings)
