"""Manifests of ten million rows: indexing them, opening them again, reading them at random, a length table.

OMP_NUM_THREADS=1 python -m benchmarks.manifest

Needs about 4 GB of temporary disk (in TMPDIR) and three minutes. The length table covers a part of the rows. Opening
and reading are measured in a fresh process, like a data worker: private pages (`Anonymous` of
/proc/self/smaps_rollup), and all resident pages, which include the mapped part of the index.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import call_in_fresh_process, memory_mb, write_report
from kebyt5_xm.data.pool import num_cores
from kebyt5_xm.data.sources.manifest import open_rows

NUM_ROWS = 10_000_000
NUM_ROWS_WITH_LENGTHS = NUM_ROWS // 50
ROWS_WRITTEN_AT_ONCE = 100_000
ROWS_READ = 100_000
DEMANDED_OPENINGS_PER_S = 1
"""A manifest opens within a second."""
DEMANDED_ROWS_TO_PRIVATE_MB = 1_000_000
"""An opened manifest of ten million rows takes at most ten megabytes of private memory."""


def main() -> None:
    figures: dict[str, Any] = {"rows": NUM_ROWS}
    with tempfile.TemporaryDirectory(prefix="manifest-benchmark-") as folder:
        for name, write_rows in {"json_lines": write_json_lines, "parquet": write_parquet}.items():
            path = write_rows(Path(folder))
            figures[name] = {"file_mb": path.stat().st_size / 1e6}
            started = time.perf_counter()
            open_rows(path)
            elapsed = time.perf_counter() - started
            figures[name] |= {"indexing_s": elapsed, "indexed_rows_per_s": NUM_ROWS / elapsed}
            figures[name]["index_mb"] = path.with_name(path.name + SUFFIXES[name]).stat().st_size / 1e6
            figures[name] |= call_in_fresh_process(read_at_random, path)
            if name == "json_lines":  # parquet's length table takes little more than reading its rows
                figures["length_table"] = measure_lengths(Path(folder))
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
    kinds = ("json_lines", "parquet")
    write_report(
        "manifest",
        figures,
        demanded={
            **{f"{name}.openings_per_s": DEMANDED_OPENINGS_PER_S for name in kinds},
            **{f"{name}.ratio_rows_to_private_mb_of_opening": DEMANDED_ROWS_TO_PRIVATE_MB for name in kinds},
        },
    )


SUFFIXES = {"json_lines": ".index", "parquet": ".rows"}


def write_json_lines(folder: Path, name: str = "rows.jsonl", num_rows: int = NUM_ROWS) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, num_rows, ROWS_WRITTEN_AT_ONCE):
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(start)))
    return path


def write_parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    path = folder / "rows.parquet"
    schema = pyarrow.schema([("question", pyarrow.string()), ("answer", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, NUM_ROWS, ROWS_WRITTEN_AT_ONCE):
            writer.write_table(pyarrow.Table.from_pylist(rows(start), schema))
    return path


def rows(start: int) -> list[dict[str, str]]:
    return [
        {"question": f"{n} 다음에 오는 수는?", "answer": f"{n + 1}입니다" + "." * (n % 13)}
        for n in range(start, start + ROWS_WRITTEN_AT_ONCE)
    ]


def read_at_random(path: Path) -> dict[str, float]:
    """Open an indexed manifest and read rows at random."""
    import pyarrow.ipc  # noqa: F401  # load libraries before measuring memory

    before = memory_mb()
    started = time.perf_counter()
    table = open_rows(path)
    opening = time.perf_counter() - started
    assert len(table) == NUM_ROWS
    opened = memory_mb()
    draw = np.random.default_rng(0).integers(0, NUM_ROWS, ROWS_READ).tolist()
    started = time.perf_counter()
    for number in draw:
        assert table.row(number)["question"].startswith(f"{number} ")
    elapsed = time.perf_counter() - started
    after = memory_mb()
    private = opened["Anonymous"] - before["Anonymous"]
    return {
        "opening_ms": opening * 1e3,
        "openings_per_s": 1 / opening,
        "private_growth_mb_of_opening": private,
        "resident_growth_mb_of_opening": opened["Rss"] - before["Rss"],
        "ratio_rows_to_private_mb_of_opening": NUM_ROWS / max(private, 1),
        "random_rows_per_s": ROWS_READ / elapsed,
        "private_growth_mb_of_reading": after["Anonymous"] - opened["Anonymous"],
        "resident_growth_mb_of_reading": after["Rss"] - opened["Rss"],
    }


def measure_lengths(folder: Path) -> dict[str, float]:
    """Measure the length table of a text-only manifest: no media headers are read, only rows."""
    from kebyt5_xm.data.sources.manifest_source import Manifest

    path = write_json_lines(folder, "lengths.jsonl", NUM_ROWS_WITH_LENGTHS)
    source = Manifest(str(path), prompt="{question}", target="{answer}")
    source.connect({})
    started = time.perf_counter()
    source.prepare(num_cores(), lambda _: None)
    elapsed = time.perf_counter() - started
    return {
        "rows": NUM_ROWS_WITH_LENGTHS,
        "processes": num_cores(),
        "seconds": elapsed,
        "rows_per_s": NUM_ROWS_WITH_LENGTHS / elapsed,
    }


if __name__ == "__main__":
    main()
