"""Manifests: tables whose rows name media files and hold texts, with any row read at once.

- JSON lines (`.jsonl`, `.ndjson`, `.json`) are read in place, through an index beside the file.
- The same with `.gz` or `.zst` behind it, and parquet (`.parquet`), which cannot be entered in the middle, are
  written once as a file that can, beside the manifest.
- WebDataset tar shards (`.tar`) are read in place, through an index of their headers beside the file.
- Hugging Face datasets, saved to a folder or as `hf:NAME?config=C&split=S&revision=R`, are read in place.
- A pattern such as `train-{000..127}.tar` or `train-*.jsonl` is all its files as one table.
- Files that are laid out in another way are read by a layout (`kebyt5_xm.data.layouts`), patterns of them too.

Opening a manifest whose index is there reads next to nothing, whatever its length. Where several processes are to
read one, open it in one of them first, so that the index is made once.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kebyt5_xm.data.corpus import COMPRESSIONS, FORMATS
from kebyt5_xm.data.joined_rows import JoinedRows, expanded
from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.pool import Progress, num_cores, run_jobs
from kebyt5_xm.data.rows import Rows
from kebyt5_xm.errors import UserError

FILES_FOR_PROCESSES = 16


def open_rows(path: str | Path, layout: Layout | None = None) -> Rows:
    """Open a manifest, or files of a layout; raise `UserError` if there is none, or none of its kind, or no rows.

    The first time, and whenever the file has changed, this reads the whole file to make its index.
    """
    if str(path).startswith("hf:"):
        from kebyt5_xm.data.named_dataset import open_named

        return _with_rows(open_named(str(path)))
    path = Path(path)
    open_file = layout.open if layout is not None else _open
    files = expanded(path)
    if files is not None:
        workers = num_cores() if len(files) >= FILES_FOR_PROCESSES else 1
        jobs = {n: partial(_index, open_file, file) for n, file in enumerate(files)}
        list(run_jobs(jobs, workers, lambda _: None))
        return JoinedRows(path, [open_file(file) for file in files], layout)
    return open_file(path)


def _index(open_file: Callable[[Path], Rows], path: Path, progress: Progress) -> None:
    """Open a table for its index to be made."""
    open_file(path)


def _open(path: Path) -> Rows:
    if path.is_dir():
        from kebyt5_xm.data.dataset_rows import is_saved, open_saved

        if is_saved(path):
            return _with_rows(open_saved(path))
    if not path.is_file():
        raise UserError(f"found no manifest at {path}, expected a file; correct the path")
    compressed = path.suffix.lower() in COMPRESSIONS
    kind = FORMATS.get((path.with_suffix("") if compressed else path).suffix.lower())
    if kind == "jsonl":
        from kebyt5_xm.data.json_lines import JsonLines

        rows: Rows = JsonLines(path)
    elif kind == "parquet" and not compressed:
        from kebyt5_xm.data.parquet_rows import ParquetRows

        rows = ParquetRows(path)
    elif path.suffix.lower() == ".tar":
        from kebyt5_xm.data.tar_rows import TarRows

        rows = TarRows(path)
    else:
        raise UserError(
            f"found a manifest named {path.name}, expected a name that ends in .jsonl, .ndjson or .json (.gz or "
            ".zst may follow), in .parquet or in .tar: rename or convert it"
        )
    return _with_rows(rows)


def _with_rows(rows: Rows) -> Rows:
    if not len(rows):
        raise UserError(f"found no rows in {rows.name}, expected at least one")
    return rows
