"""Writes a store shard by shard. Each shard has its own report; the reports are merged at the end.

The process that writes shards (`kebyt5-xm prepare text`, datatrove's executors) may be killed and restarted at any
time: a shard with a report is finished, and every other shard is written again.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.data.text.documents import EMPTY, Problem
from kebyt5_xm.data.text.store import Shard
from kebyt5_xm.data.text.store_writer import ShardWriter, finish_store, shard_name, write_json
from kebyt5_xm.durable import durable_file

ERRORS_NAME = "errors.jsonl"


@dataclass(frozen=True)
class Report:
    """The counts of a finished shard.

    `lines` counts all lines read; `problems` counts by cause, including empty documents.
    """

    shard: Shard
    lines: int
    problems: dict[str, int]


def make_shard(
    directory: Path,
    number: int,
    separator: bytes,
    batches: Iterable[tuple[int, list[bytes], list[Problem], int]],
) -> Report:
    """Write shard `number` from batches of (lines read, documents kept, problems, empty documents)."""
    name = shard_name(number)
    lines = 0
    problems: Counter[str] = Counter()
    with (
        ShardWriter(directory, name, separator) as writer,
        durable_file(directory / f"{name}.{ERRORS_NAME}") as file,
    ):
        for num_lines, documents, found, num_empty in batches:
            writer.write(documents)
            lines += num_lines
            problems.update(problem.cause for problem in found)
            problems[EMPTY] += num_empty
            file.writelines(to_json_line(problem._asdict()) for problem in found)
        shard = writer.close()
    report = Report(shard, lines, dict(+problems))
    write_json(_report_path(directory, number), asdict(report))
    return report


def load_report(directory: Path, number: int) -> Report | None:
    """Return the report of a finished shard, or None if the shard is not finished."""
    path = _report_path(directory, number)
    if not path.exists():
        return None
    contents = json.loads(path.read_text(encoding="utf-8"))
    return Report(Shard(**contents["shard"]), contents["lines"], contents["problems"])


def merge_shards(
    directory: Path,
    language: str,
    separator: bytes,
    reports: Sequence[Report],
    continues: Sequence[bool],
    made_from: dict[str, object],
) -> dict[str, int]:
    """Write `errors.jsonl` and `store.json`, remove the reports, and return the problems by cause.

    Args:
        continues: for every shard, whether it continues the file in which the previous shard ended; its line numbers
            then continue too.
        made_from: inputs and options, to record.

    Raises:
        UserError: no shard holds a document.
    """
    problems = count_problems(reports)
    with durable_file(directory / ERRORS_NAME) as file:
        file.writelines(
            to_json_line(found._asdict()) for found in iterate_problems(directory, reports, continues)
        )
    finish_store(directory, language, separator, [report.shard for report in reports], problems, made_from)
    for number in range(len(reports)):
        _report_path(directory, number).unlink(missing_ok=True)
        (directory / f"{shard_name(number)}.{ERRORS_NAME}").unlink(missing_ok=True)
    return problems


def count_problems(reports: Iterable[Report]) -> dict[str, int]:
    """Return cause -> count over all shards."""
    problems: Counter[str] = Counter()
    for report in reports:
        problems.update(report.problems)
    return dict(problems)


def iterate_problems(
    directory: Path, reports: Sequence[Report], continues: Sequence[bool]
) -> Iterator[Problem]:
    """Yield the problems of finished shards, with lines counted from the start of each file."""
    lines_before = 0
    for number, (report, is_continued) in enumerate(zip(reports, continues, strict=True)):
        lines_before = lines_before if is_continued else 0
        with (directory / f"{shard_name(number)}.{ERRORS_NAME}").open(encoding="utf-8") as file:
            for line in file:
                problem = Problem(**json.loads(line))
                yield problem._replace(line=problem.line + lines_before)
        lines_before += report.lines


def read_problems(directory: Path) -> Iterator[Problem]:
    """Yield the problems listed in `errors.jsonl` of a finished store."""
    with (directory / ERRORS_NAME).open(encoding="utf-8") as file:
        yield from (Problem(**json.loads(line)) for line in file)


def _report_path(directory: Path, number: int) -> Path:
    return directory / f"{shard_name(number)}.json"
