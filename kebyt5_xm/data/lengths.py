"""The length table of a manifest: encoder positions and target ids of every row, from headers alone.

It is made once for a manifest and whatever decides lengths (prompt, target, limits, preprocessing, adapter), in
parallel, and lies beside the manifest as `X.lengths-KEY`:

    4096 bytes      a JSON object that describes the rest, padded with spaces
    int32 [row, 2]  encoder positions and target ids; zeros where no example can be made

A medium that changes afterwards is found out when it is drawn: its slots no longer match.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.derived import places, write_derived
from kebyt5_xm.data.pool import Progress, run_jobs
from kebyt5_xm.errors import UserError

FORMAT, VERSION = "kebyt5-xm length table", 1
HEADER_BYTES = 4096
JOB_ROWS = 2048
"""Rows of one job: about a second of headers on a local disk."""
ROWS_FOR_PROCESSES = 20_000
"""With fewer rows, processes would take longer to start, torch's import included, than the headers."""
SHOWN_CAUSES = 5
ROWS_BETWEEN_UPDATES = 64

_LOG = logging.getLogger(__name__)

Measure = Callable[[int], "tuple[int, int] | str"]
"""Row -> encoder positions and target ids, or the cause why no example can be made. Sent to other processes."""


@dataclass(frozen=True)
class LengthTable:
    """An opened table; `lengths` [row, 2] is mapped, not read. `digest` is a hash of all lengths."""

    lengths: NDArray[np.int32]
    digest: str
    longest: int
    num_bad: int

    def __len__(self) -> int:
        return len(self.lengths)


def find_table(manifest: Path, key: str, num_rows: int) -> LengthTable | None:
    """Return the table of `manifest` for `key` if there is one that fits."""
    for place in places(manifest, _suffix(key)):
        try:
            with place.open("rb") as file:
                header = json.loads(file.read(HEADER_BYTES))
            fits = (header["format"], header["version"], header["key"]) == (FORMAT, VERSION, key)
            if not fits or header["rows"] != num_rows or place.stat().st_size != HEADER_BYTES + 8 * num_rows:
                continue
            lengths = np.memmap(place, np.int32, "r", HEADER_BYTES, (num_rows, 2))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        return LengthTable(lengths, header["digest"], header["longest"], header["bad"])
    return None


def make_table(
    manifest: Path, key: str, num_rows: int, measure: Measure, workers: int, progress: Progress
) -> LengthTable:
    """Measure every row in `workers` processes and write the table. Raises `UserError` if it can lie nowhere."""
    lengths = np.zeros((num_rows, 2), dtype=np.int32)
    causes: Counter[str] = Counter()
    jobs = {
        start: partial(_measure_rows, measure, start, min(start + JOB_ROWS, num_rows))
        for start in range(0, num_rows, JOB_ROWS)
    }
    workers = workers if num_rows >= ROWS_FOR_PROCESSES else 1
    for start, (measured, found) in run_jobs(jobs, workers, progress):
        lengths[start : start + len(measured)] = measured
        causes += found
    num_bad = sum(causes.values())
    raw = lengths.astype("<i4").tobytes()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "rows": num_rows,
        "longest": int(lengths.max(initial=0)),
        "bad": num_bad,
        "digest": hashlib.blake2b(raw, digest_size=8).hexdigest(),
    }

    def write(file: BinaryIO) -> None:
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES))
        file.write(raw)

    write_derived(manifest, _suffix(key), write)
    if num_bad:
        most = "; ".join(f"{cause} ({count})" for cause, count in causes.most_common(SHOWN_CAUSES))
        _LOG.warning("%s: %d of %d rows give no example: %s", manifest, num_bad, num_rows, most)
    table = find_table(manifest, key, num_rows)
    if table is None:
        raise UserError(
            f"the length table of {manifest} was removed or changed while it was made; start again"
        )
    return table


def table_key(settings: dict[str, Any]) -> str:
    """Return a digest of all that decides lengths."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _suffix(key: str) -> str:
    return f".lengths-{key}"


def _measure_rows(
    measure: Measure, start: int, stop: int, progress: Progress
) -> tuple[NDArray[np.int32], "Counter[str]"]:
    lengths = np.zeros((stop - start, 2), dtype=np.int32)
    causes: Counter[str] = Counter()
    told = start
    for row in range(start, stop):
        measured = measure(row)
        if isinstance(measured, str):
            causes[measured] += 1
        else:
            lengths[row - start] = measured
        if row + 1 - told == ROWS_BETWEEN_UPDATES or row + 1 == stop:
            progress(row + 1 - told)
            told = row + 1
    return lengths, causes
