"""The loop of `kebyt5-xm teach`: batches of rows are answered and appended to a manifest."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from kebyt5_xm.commands.generate.output import AnswerFile
from kebyt5_xm.commands.generate.waiting import Row, answer_waiting, report_end
from kebyt5_xm.commands.teach.manifest import ManifestInputs
from kebyt5_xm.commands.teach.teacher import Teacher


class Answered:
    """A file of answers without lines for rows that have none: each of its lines is a row to train on."""

    def __init__(self, file: AnswerFile) -> None:
        self._file = file
        self.done = file.done

    def write(self, rows: list[Row]) -> None:
        self._file.write([row for row in rows if "error" not in row])


def answer_rows(teacher: Teacher, inputs: ManifestInputs, args: argparse.Namespace) -> None:
    """Answer every row that has no answer yet. Raises `UserError` as `generate.batch.answer_all` does."""
    inputs.check(teacher.find_modality, teacher.is_recording)

    def answer(numbers: Sequence[int]) -> list[Row]:
        for number in numbers:
            inputs.columns(number)
        batch = [inputs.segments(number, teacher.find_modality) for number in numbers]
        answers = teacher.answer(batch)
        return [inputs.line(number, found.as_dict()) for number, found in zip(numbers, answers, strict=True)]

    settings = {"command": "teach", **teacher.settings, **inputs.settings, "batch_size": args.batch_size}
    with AnswerFile(Path(args.out), inputs.key, settings) as file:
        num_waiting, failed = answer_waiting(
            Answered(file), inputs, args.batch_size, answer, whole_batches=True
        )
    report_end(inputs, args.out, num_waiting, failed)
