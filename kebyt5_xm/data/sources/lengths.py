"""The length table of a manifest: encoder positions and target ids of every row, from headers alone.

It is made once, in parallel, for a manifest and the settings that decide lengths (prompt, target, limits,
preprocessing, adapter). The file `X.lengths-KEY` lies in the manifest's folder:

    4096 bytes      a JSON object that describes the rest, padded with spaces
    int32 [row, 2]  encoder positions and target ids; zeros where no example can be made

A medium that changes later is noticed when it is drawn, because its slots no longer match. Rows without an
example are measured again at every start, because a missing file may have been added. A table of an earlier
version of the manifest is removed when a new table is made, if it was not used for a week.
"""

import contextlib
import glob
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.pool import Progress, run_jobs
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.tables.derived import list_derived_paths, write_derived
from kebyt5_xm.errors import UserError

FORMAT, VERSION = "kebyt5-xm length table", 2
HEADER_BYTES = 4096
JOB_ROWS = 2048
"""Rows of one job: about a second of headers on a local disk."""
ROWS_FOR_PROCESSES = 20_000
"""With fewer rows, starting processes (and importing torch) takes longer than reading the headers."""
SHOWN_CAUSES = 5
UNUSED_SECONDS = 7 * 24 * 3600
"""Age since the last use at which an outdated table is removed; a current run may still open a younger one. Our
choice.
"""
ROWS_BETWEEN_UPDATES = 64

_LOG = logging.getLogger(__name__)

Measure = Callable[[int], "tuple[int, int] | str"]
"""Row -> encoder positions and target ids, or why no example can be made. Must be picklable."""


@dataclass(frozen=True)
class LengthTable:
    """An open table. `lengths` [row, 2] is memory-mapped; `digest` is a hash of all lengths.

    A pickled table is mapped again in the other process, or copied if the file was replaced meanwhile.
    """

    path: Path
    lengths: NDArray[np.int32]
    digest: str
    longest: int
    num_bad: int

    def __len__(self) -> int:
        return len(self.lengths)

    def num_impossible(self, longest: int | None) -> int:
        """Return how many rows give no example, or one of more than `longest` positions or target ids."""
        return self.num_bad + (0 if longest is None else int((self.lengths.max(axis=1) > longest).sum()))

    def describe_change(self, found: tuple[int, int], promised: tuple[int, ...]) -> str:
        """Return why an example has other lengths, in positions and target ids, than this table promised."""
        if not any(promised):
            return "a file was added after the length table was made; the row is used from the next start on"
        return (
            f"{found[0]} positions and {found[1]} target ids, but {promised[0]} and {promised[1]} when the length "
            f"table was made: a file has changed since; delete {self.path.name} and start again"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.digest, self.longest, self.num_bad)
        there = _open(self.path)
        if there is not None and there.digest == self.digest:
            return _open_exactly, (self.path, *values)
        return type(self), (self.path, np.asarray(self.lengths), *values)


def open_table(prompts: PromptTable, settings: dict[str, Any]) -> LengthTable:
    """Return the table of `prompts`, and make it if there is none. `settings` are those that decide lengths."""
    key = _key(prompts, settings)
    return find_table(prompts.rows.path, key, len(prompts.rows)) or _make(prompts, key, 1, lambda _: None)


def refresh_table(
    prompts: PromptTable, settings: dict[str, Any], workers: int, progress: Progress
) -> LengthTable:
    """Return the table of `prompts` as `open_table` does, with the rows that gave no example measured again."""
    key = _key(prompts, settings)
    table = find_table(prompts.rows.path, key, len(prompts.rows))
    if table is None:
        return _make(prompts, key, workers, progress)
    if not table.num_bad:
        return table
    return remeasure_impossible(
        table, prompts.rows.path, key, prompts.rows.fingerprint, prompts.measure, workers, progress
    )


def _key(prompts: PromptTable, settings: dict[str, Any]) -> str:
    return table_key({"manifest": prompts.rows.fingerprint, **settings})


def _make(prompts: PromptTable, key: str, workers: int, progress: Progress) -> LengthTable:
    rows = prompts.rows
    return make_table(rows.path, key, rows.fingerprint, len(rows), prompts.measure, workers, progress)


def find_table(manifest: Path, key: str, num_rows: int) -> LengthTable | None:
    """Return the table of `manifest` for `key`, or None if there is none of this many rows."""
    for place in list_derived_paths(manifest, _suffix(key)):
        table = _open(place, key)
        if table is not None and len(table) == num_rows:
            with contextlib.suppress(OSError):  # another user's file, or a read-only disk
                os.utime(place)
            return table
    return None


def make_table(
    manifest: Path,
    key: str,
    fingerprint: str,
    num_rows: int,
    measure: Measure,
    workers: int,
    progress: Progress,
) -> LengthTable:
    """Measure every row in `workers` processes and write the table. Raises `UserError` if it cannot be written.

    `fingerprint` is a hash of the manifest's content.
    """
    rows = np.arange(num_rows)
    lengths, causes = _measure(rows, measure, workers, progress)
    _warn(manifest, num_rows, causes)
    _remove_superseded(manifest, fingerprint)
    return _write_table(manifest, key, fingerprint, lengths, sum(causes.values()))


def remeasure_impossible(
    table: LengthTable,
    manifest: Path,
    key: str,
    fingerprint: str,
    measure: Measure,
    workers: int,
    progress: Progress,
) -> LengthTable:
    """Measure the rows without an example again; return a new table if any of them has one now, else the old
    table.
    """
    rows = np.flatnonzero(~table.lengths.any(axis=1))
    measured, causes = _measure(rows, measure, workers, progress)
    _warn(manifest, len(table), causes)
    if not measured.any():
        return table
    lengths = np.array(table.lengths)
    lengths[rows] = measured
    return _write_table(manifest, key, fingerprint, lengths, sum(causes.values()))


def _measure(
    rows: NDArray[np.int64], measure: Measure, workers: int, progress: Progress
) -> tuple[NDArray[np.int32], "Counter[str]"]:
    lengths = np.zeros((len(rows), 2), dtype=np.int32)
    causes: Counter[str] = Counter()
    jobs = {
        start: partial(_measure_rows, measure, rows[start : start + JOB_ROWS])
        for start in range(0, len(rows), JOB_ROWS)
    }
    workers = workers if len(rows) >= ROWS_FOR_PROCESSES else 1
    for start, (measured, found) in run_jobs(jobs, workers, progress):
        lengths[start : start + len(measured)] = measured
        causes += found
    return lengths, causes


def _write_table(
    manifest: Path, key: str, fingerprint: str, lengths: NDArray[np.int32], num_bad: int
) -> LengthTable:
    raw = lengths.astype("<i4").tobytes()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "manifest": fingerprint,
        "rows": len(lengths),
        "longest": int(lengths.max(initial=0)),
        "bad": num_bad,
        "digest": hashlib.blake2b(raw, digest_size=8).hexdigest(),
    }

    def write(file: BinaryIO) -> None:
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES))
        file.write(raw)

    write_derived(manifest, _suffix(key), write)
    table = find_table(manifest, key, len(lengths))
    if table is None:
        raise UserError(
            f"the length table of {manifest} was removed or changed while it was made; start again"
        )
    return table


def _warn(manifest: Path, num_rows: int, causes: "Counter[str]") -> None:
    if causes:
        most = "; ".join(f"{cause} ({count})" for cause, count in causes.most_common(SHOWN_CAUSES))
        total = sum(causes.values())
        _LOG.warning("%s: %d of %d rows give no example: %s", manifest, total, num_rows, most)


def _read_header(place: Path) -> dict[str, Any] | None:
    """Return the header of a length table, or None for any other file."""
    try:
        with place.open("rb") as file:
            header = json.loads(file.read(HEADER_BYTES))
        return header if header["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(place: Path, key: str | None = None) -> LengthTable | None:
    header = _read_header(place)
    try:
        if header is None or header["version"] != VERSION or header["key"] != (key or header["key"]):
            return None
        if place.stat().st_size != HEADER_BYTES + 8 * header["rows"]:
            return None
        lengths = np.memmap(place, np.int32, "r", HEADER_BYTES, (header["rows"], 2))
        return LengthTable(place, lengths, header["digest"], header["longest"], header["bad"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open_exactly(path: Path, digest: str, longest: int, num_bad: int) -> LengthTable:
    table = _open(path)
    if table is None or table.digest != digest:
        raise UserError(f"the length table {path} was removed or changed while a run began; start it again")
    return table


def _remove_superseded(manifest: Path, fingerprint: str) -> None:
    for place in list_derived_paths(manifest, _suffix("")):
        for old in place.parent.glob(f"{glob.escape(place.name)}*"):
            header = _read_header(old)
            if header is None or (header["version"] == VERSION and header.get("manifest") == fingerprint):
                continue
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > UNUSED_SECONDS:
                    old.unlink()


def table_key(settings: dict[str, Any]) -> str:
    """Return a digest of the settings that decide lengths."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _suffix(key: str) -> str:
    return f".lengths-{key}"


def _measure_rows(
    measure: Measure, rows: NDArray[np.int64], progress: Progress
) -> tuple[NDArray[np.int32], "Counter[str]"]:
    lengths = np.zeros((len(rows), 2), dtype=np.int32)
    causes: Counter[str] = Counter()
    reported = 0
    for place, row in enumerate(rows.tolist()):
        measured = measure(row)
        if isinstance(measured, str):
            causes[measured] += 1
        else:
            lengths[place] = measured
        if place + 1 - reported == ROWS_BETWEEN_UPDATES or place + 1 == len(rows):
            progress(place + 1 - reported)
            reported = place + 1
    return lengths, causes
