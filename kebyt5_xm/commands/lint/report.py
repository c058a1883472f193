"""Reads all tables and stores in processes, and prints the problems and the lengths."""

import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kebyt5_xm.data.media.bad_sample import escape_unprintable, to_json_line
from kebyt5_xm.data.pool import num_cores, run_jobs
from kebyt5_xm.data.sources.inspection import Findings, Inspection, Problem
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

BEGINNING = b'{"source": '
"""How every file of problems begins."""
JOB_ROWS = 256
ROWS_FOR_PROCESSES = 1000
"""With fewer rows, starting processes takes longer than reading. Measured: 10 s to import torch, 1 ms a small
image.
"""

BAR = "█"
WIDTH = 40
QUANTILES = {"median": 0.5, "95%": 0.95, "99%": 0.99}


@dataclass
class _Tally:
    """The results so far of one table or store. Problems beyond `shown` are only counted."""

    problems: list[Problem] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)

    def add(self, found: Findings, shown: int) -> None:
        self.problems = sorted([*self.problems, *found.problems])[:shown]
        self.causes.update(problem.cause for problem in found.problems)
        for what, lengths in found.lengths.items():
            self.lengths.setdefault(what, Counter()).update(lengths)


def report(subjects: Sequence[Inspection], workers: int, shown: int, out: str | None) -> bool:
    """Read all of `subjects`, print their problems and lengths, and return True if there was a problem.

    Raises `UserError` if there is nothing to read, or if `out` cannot be written.
    """
    if not subjects:
        raise UserError("found nothing to read, expected manifests, text stores or recipes (-c)")
    if workers < 0 or shown < 0:
        raise UserError(f"found --workers {workers} and --show {shown}, expected numbers from 0 up")
    num_rows = sum(subject.num_rows for subject in subjects)
    workers = 1 if num_rows < ROWS_FOR_PROCESSES else workers or num_cores()
    tallies = [_Tally() for _ in subjects]
    if out and not _is_ours(Path(out)):
        raise UserError(f"found --out {out}, which is not a file of lint's problems; choose another --out")
    try:
        with durable_file(Path(out)) if out else nullcontext() as file:
            for subject, tally, found in _read(subjects, tallies, workers, num_rows):
                tally.add(found, shown)
                if file is not None:
                    about = {"source": subject.source, "manifest": subject.path}
                    file.writelines(to_json_line(about | problem._asdict()) for problem in found.problems)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    for subject, tally in zip(subjects, tallies, strict=True):
        for line in _page(subject, tally, out):
            print(escape_unprintable(line))
    return any(tally.causes for tally in tallies)


def _is_ours(path: Path) -> bool:
    """Return True if a file may be overwritten: it is missing, empty, or written by lint."""
    if not path.is_file() or not path.stat().st_size:
        return True
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING


def _read(
    subjects: Sequence[Inspection], tallies: Sequence[_Tally], workers: int, num_rows: int
) -> Iterator[tuple[Inspection, _Tally, Findings]]:
    jobs, whose = {}, deque[tuple[Inspection, _Tally]]()
    for subject, tally in zip(subjects, tallies, strict=True):
        for start in range(0, subject.num_rows, JOB_ROWS):
            jobs[len(whose)] = partial(subject.read, start, min(start + JOB_ROWS, subject.num_rows))
            whose.append((subject, tally))
    with tqdm(total=num_rows, unit=" rows", desc="lint", disable=None, delay=1.0, file=sys.stderr) as bar:
        waiting: dict[int, Findings] = {}
        for number, found in run_jobs(jobs, workers, bar.update):
            waiting[number] = found
            while whose and (first := len(jobs) - len(whose)) in waiting:  # in the order of the rows
                yield *whose.popleft(), waiting.pop(first)


def _page(subject: Inspection, tally: _Tally, out: str | None) -> Iterator[str]:
    for line, path, cause in tally.problems:
        named = "" if path == subject.path else f"{_relative(path, subject.path)}: "
        yield f"{subject.path}:{line}: {named}{cause}"
    num_bad = sum(tally.causes.values())
    if num_bad > len(tally.problems):
        where = f"in {out}" if out else "; --out FILE writes all, --show N prints more"
        yield f"{subject.path}: ... and {num_bad - len(tally.problems)} problems more {where}"
    title = f"{subject.source}: {subject.path}" if subject.source else subject.path
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
    """Add up causes that differ only in their numbers, under the most frequent one."""
    groups: dict[str, Counter[str]] = {}
    for cause, count in causes.items():
        groups.setdefault("".join(c for c in cause if not c.isdigit()), Counter())[cause] = count
    grouped: Counter[str] = Counter()
    for members in groups.values():
        example = min(members, key=lambda cause: (-members[cause], cause))
        grouped[example if len(members) == 1 else f"{example} (and alike)"] = sum(members.values())
    return grouped


def histogram(quantity: str, lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[str]:
    """Yield lines on positive `lengths` [n], which occur `counts` [n] times each: quantiles, and a bar chart.

    Each bucket [2^k, 2^(k + 1)) is one bar; the longest bar is `WIDTH` characters.
    """
    order = np.argsort(lengths)
    lengths, counts = lengths[order], counts[order]
    below = np.cumsum(counts)
    total = int(below[-1])
    places = {name: lengths[np.searchsorted(below, share * total)] for name, share in QUANTILES.items()}
    mean = float(lengths @ counts) / total
    numbers = {"least": lengths[0], **places, "most": lengths[-1]}
    summary = ", ".join(f"{name} {value:,}" for name, value in numbers.items())
    yield f"  {quantity}: {summary}, mean {mean:,.1f}"
    bucket = np.frexp(lengths)[1] - 1  # exact for integers below 2^53
    sums = np.bincount(bucket - bucket[0], weights=counts).astype(np.int64)
    edges = [f"{1 << k:,} to {(2 << k) - 1:,}" for k in range(int(bucket[0]), int(bucket[-1]) + 1)]
    for edge, count in zip(edges, sums.tolist(), strict=True):
        bar = BAR * max(-(-WIDTH * count // int(sums.max())), int(count > 0))
        yield f"    {edge:>{max(map(len, edges))}}  {count:>9,}  {bar}".rstrip()
