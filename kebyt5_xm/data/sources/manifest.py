"""Opens manifests: tables whose rows hold texts and references to media, with random access to rows.

- JSON lines (`.jsonl`, `.ndjson`, `.json`) are read in place, through an index file in the same folder.
- Formats without random access are written once as a file that has it, in the same folder: compressed JSON lines
  (`.gz`, `.zst`, `.bz2`, `.xz`), one JSON array of objects, parquet (`.parquet`), Arrow (`.arrow`, `.feather`,
  `.ipc`) and ORC (`.orc`).
- WebDataset tar shards (`.tar`) are read in place, through an index of their headers in the same folder.
- Hugging Face datasets, saved to a folder or as `hf:NAME?config=C&split=S&revision=R`, are read in place.
- A pattern such as `train-{000..127}.tar` or `train-*.jsonl` makes one table of all its files.
- Other files, and patterns of them, are read by a layout (`kebyt5_xm.data.layouts`).

Opening a manifest that has its index reads next to nothing, whatever its length. If several processes read a
manifest, open it in one of them first, so that the index is made once.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kebyt5_xm.data.layouts.layout import Layout
from kebyt5_xm.data.pool import Progress, num_cores, run_jobs
from kebyt5_xm.data.tables.joined_rows import JoinedRows, expand_pattern
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.data.text.corpus import COMPRESSIONS, FORMATS
from kebyt5_xm.errors import UserError

FILES_FOR_PROCESSES = 16
COLUMNAR = {
    ".parquet": "ParquetRows",
    ".pq": "ParquetRows",
    ".arrow": "ArrowFileRows",
    ".feather": "ArrowFileRows",
    ".ipc": "ArrowFileRows",
    ".arrows": "ArrowFileRows",
    ".orc": "OrcRows",
}
"""Suffix of a file name -> its class in `columnar_rows`, which is imported only if needed."""

DELIMITED = "format: {class_path: kebyt5_xm.data.layouts.Delimited, init_args: {%s}}"
CSV = DELIMITED % "delimiter: ',', quoting: minimal"
CONVERTED = "pandas or polars reads it and writes parquet: %s(IN).%s(OUT)"
REMEDIES = {
    ".csv": f"for CSV, give `{CSV}`",
    ".tsv": f"for TSV, give `{DELIMITED % 'quoting: minimal'}`, or `quoting: none` if quotation marks are text",
    ".txt": f"for delimited text, give a `format` such as `{CSV}`",
    ".xlsx": "save the sheet as CSV UTF-8 and give `format`, or "
    + CONVERTED % ("pandas.read_excel", "to_parquet"),
    ".avro": CONVERTED % ("polars.read_avro", "write_parquet"),
    ".pkl": CONVERTED % ("pandas.read_pickle", "to_parquet"),
    ".h5": CONVERTED % ("pandas.read_hdf", "to_parquet"),
    ".tgz": "unpack its compression (gunzip, unzstd ...): shards are entered in the middle",
    ".zip": "unpack it",
}
"""What to do with tables of formats that are not read."""
SAME = {
    ".xls": ".xlsx",
    ".ods": ".xlsx",
    ".tab": ".tsv",
    ".text": ".txt",
    ".pickle": ".pkl",
    ".hdf5": ".h5",
    ".tbz2": ".tgz",
    ".txz": ".tgz",
}


def open_rows(path: str | Path, layout: Layout | None = None) -> Rows:
    """Open a manifest, or files of a layout. Raises `UserError` if it is missing, of an unknown format, or empty.

    The first time, and whenever the file has changed, this reads the whole file to make its index.
    """
    if str(path).startswith("hf:"):
        from kebyt5_xm.data.tables.dataset_rows import open_named_dataset

        return _with_rows(open_named_dataset(str(path)))
    path = Path(path)
    open_file = layout.open if layout is not None else _open
    files = expand_pattern(path)
    return joined(path, files, layout) if files is not None else open_file(path)


def joined(path: Path, files: Sequence[Path], layout: Layout | None) -> Rows:
    """Open files as one table. Their indexes are made in several processes."""
    open_file = layout.open if layout is not None else _open
    workers = num_cores() if len(files) >= FILES_FOR_PROCESSES else 1
    jobs = {n: partial(_index, open_file, file) for n, file in enumerate(files)}
    list(run_jobs(jobs, workers, lambda _: None))
    return JoinedRows(path, files, [open_file(file) for file in files], partial(joined, layout=layout))


def _index(open_file: Callable[[Path], Rows], path: Path, progress: Progress) -> None:
    """Open a table, which makes its index."""
    open_file(path)


def _open(path: Path) -> Rows:
    if path.is_dir():
        from kebyt5_xm.data.tables.dataset_rows import is_saved_dataset, open_saved_dataset

        if is_saved_dataset(path):
            return _with_rows(open_saved_dataset(path))
    if not path.is_file():
        hint = f"; for all files in it, write {path}/*.parquet or the like" if path.is_dir() else ""
        raise UserError(f"found no manifest at {path}, expected a file; correct the path{hint}")
    compressed = path.suffix.lower() in COMPRESSIONS
    suffix = (path.with_suffix("") if compressed else path).suffix.lower()
    if FORMATS.get(suffix) == "jsonl":
        from kebyt5_xm.data.tables.json_lines import JsonLines

        return _with_rows(JsonLines(path))
    if suffix == ".tar" and not compressed:
        from kebyt5_xm.data.tables.tar_rows import TarRows

        return _with_rows(TarRows(path))
    if suffix in COLUMNAR and not compressed:
        import kebyt5_xm.data.tables.columnar_rows as columnar

        return _with_rows(getattr(columnar, COLUMNAR[suffix])(path))
    if compressed and suffix in (".tar", *COLUMNAR):
        suffix = ".tgz"
    remedy = REMEDIES.get(SAME.get(suffix, suffix), "rename or convert it")
    raise UserError(
        f"found a manifest named {path.name}, expected a name that ends in .jsonl, .ndjson or .json (.gz, .zst, .bz2 "
        f"or .xz may follow), in .parquet, .arrow, .feather, .ipc or .orc, or in .tar; {remedy}"
    )


def _with_rows(rows: Rows) -> Rows:
    if not len(rows):
        raise UserError(f"found no rows in {rows.name}, expected at least one")
    return rows
