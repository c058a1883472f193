"""Reading all subjects in processes, and the page about them."""

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kebyt5_xm.commands.lint.histogram import histogram
from kebyt5_xm.commands.lint.subjects import Found, Problem, Subject
from kebyt5_xm.data.media.bad_sample import json_line, visible
from kebyt5_xm.data.pool import num_cores, run_jobs
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

BEGINNING = b'{"source": '
"""Of a file of problems."""
JOB_ROWS = 256
ROWS_FOR_PROCESSES = 1000
"""Below, starting processes takes longer than reading does. Measured: 10 s to import torch, 1 ms a small image."""


@dataclass
class _Tally:
    """What is known of one subject so far. Problems beyond `shown` are counted, not kept."""

    problems: list[Problem] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)

    def add(self, found: Found, shown: int) -> None:
        self.problems = sorted([*self.problems, *found.problems])[:shown]
        self.causes.update(problem.cause for problem in found.problems)
        for what, lengths in found.lengths.items():
            self.lengths.setdefault(what, Counter()).update(lengths)


def report(subjects: Sequence[Subject], workers: int, shown: int, out: str | None) -> bool:
    """Read all of `subjects`, print what is wrong with them and how long they are; say whether anything is wrong.

    Raises `UserError` if there is nothing to read, or `out` cannot be written.
    """
    if not subjects:
        raise UserError("found nothing to read, expected manifests, text stores or recipes (-c)")
    if workers < 0 or shown < 0:
        raise UserError(f"found --workers {workers} and --show {shown}, expected numbers from 0 up")
    num_rows = sum(subject.num_rows for subject in subjects)
    workers = 1 if num_rows < ROWS_FOR_PROCESSES else workers or num_cores()
    tallies = [_Tally() for _ in subjects]
    if out and not _is_ours(Path(out)):
        raise UserError(
            f"found --out {out}, which holds something else than a lint's problems; choose another --out"
        )
    try:
        with durable_file(Path(out)) if out else nullcontext() as file:
            for subject, tally, found in _read(subjects, tallies, workers, num_rows):
                tally.add(found, shown)
                if file is not None:
                    about = {"source": subject.name, "manifest": subject.path}
                    file.writelines(json_line(about | problem._asdict()) for problem in found.problems)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    for subject, tally in zip(subjects, tallies, strict=True):
        for line in _page(subject, tally, out):
            print(visible(line))
    return any(tally.causes for tally in tallies)


def _is_ours(path: Path) -> bool:
    """Say whether a file may be written over: there is none, or it is empty, or an earlier lint's."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING


def _read(
    subjects: Sequence[Subject], tallies: Sequence[_Tally], workers: int, num_rows: int
) -> Iterator[tuple[Subject, _Tally, Found]]:
    jobs, whose = {}, deque[tuple[Subject, _Tally]]()
    for subject, tally in zip(subjects, tallies, strict=True):
        for start in range(0, subject.num_rows, JOB_ROWS):
            jobs[len(whose)] = partial(subject.read, start, min(start + JOB_ROWS, subject.num_rows))
            whose.append((subject, tally))
    with tqdm(total=num_rows, unit=" rows", desc="lint", disable=None, delay=1.0, file=sys.stderr) as bar:
        waiting: dict[int, Found] = {}
        for number, found in run_jobs(jobs, workers, bar.update):
            waiting[number] = found
            while whose and (first := len(jobs) - len(whose)) in waiting:  # in the order of the rows
                yield *whose.popleft(), waiting.pop(first)


def _page(subject: Subject, tally: _Tally, out: str | None) -> Iterator[str]:
    for line, path, cause in tally.problems:
        named = "" if path == subject.path else f"{_relative(path, subject.path)}: "
        yield f"{subject.path}:{line}: {named}{cause}"
    num_bad = sum(tally.causes.values())
    if num_bad > len(tally.problems):
        where = f"in {out}" if out else "; --out FILE writes all, --show N prints more"
        yield f"{subject.path}: ... and {num_bad - len(tally.problems)} problems more {where}"
    title = f"{subject.name}: {subject.path}" if subject.name else subject.path
    yield f"{title}: {subject.num_rows:,} rows, " + (
        f"{num_bad:,} with a problem ({num_bad / max(subject.num_rows, 1):.2%})"
        if num_bad
        else "nothing wrong"
    )
    for cause, count in sorted(_grouped(tally.causes).items(), key=lambda item: (-item[1], item[0])):
        yield f"  {count:>9,}  {cause}"
    for what, lengths in sorted(tally.lengths.items()):
        if lengths:
            values = np.fromiter(lengths.keys(), dtype=np.int64)
            yield from histogram(what, values, np.fromiter(lengths.values(), dtype=np.int64))


def _relative(path: str, manifest: str) -> str:
    folder = Path(manifest).parent
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _grouped(causes: Counter[str]) -> Counter[str]:
    """Count causes that differ in their numbers alone together, under the commonest of them."""
    groups: dict[str, Counter[str]] = {}
    for cause, count in causes.items():
        groups.setdefault("".join(c for c in cause if not c.isdigit()), Counter())[cause] = count
    grouped: Counter[str] = Counter()
    for members in groups.values():
        example = min(members, key=lambda cause: (-members[cause], cause))
        grouped[example if len(members) == 1 else f"{example} (and alike)"] = sum(members.values())
    return grouped
