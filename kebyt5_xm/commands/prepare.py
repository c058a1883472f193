"""`kebyt5-xm prepare text`: writes corpora into a text store, in parallel; an interrupted run can be continued."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn, get_args

from tqdm import tqdm

from kebyt5_xm.commands.readers import FormatMismatchError, check_column, read_documents
from kebyt5_xm.data.pool import num_cores, run_jobs
from kebyt5_xm.data.text.corpus import Format, Piece, default_shard_bytes, list_files, plan_shards
from kebyt5_xm.data.text.documents import InvalidUtf8, Problem, ReadOptions, count_skipped, filter_documents
from kebyt5_xm.data.text.shards import (
    ERRORS_NAME,
    Report,
    count_problems,
    iterate_problems,
    load_report,
    make_shard,
    merge_shards,
    read_problems,
)
from kebyt5_xm.data.text.store_folder import (
    begin_store,
    check_output,
    discard_store,
    lock_folder,
    remove_leftovers,
)
from kebyt5_xm.errors import UserError

PROBLEMS_SHOWN = 20
MAX_SKIPPED = 0.1
"""Share of the documents that may be skipped. Our own choice: more usually means a wrong format or encoding."""


@dataclass(frozen=True)
class Summary:
    """The result of a preparation. `seconds` and `bytes_read` (input as stored) cover this run alone."""

    documents: int
    bytes: int
    problems: dict[str, int]
    shards: int
    shards_found: int
    bytes_read: int
    seconds: float


def prepare_text(
    inputs: Sequence[str],
    out: str | Path,
    language: str,
    reading: ReadOptions = ReadOptions(),  # noqa: B008  # frozen
    separator: bytes = b"\n",
    workers: int | None = None,
    shard_bytes: int | None = None,
    overwrite: bool = False,
    max_skipped: float = MAX_SKIPPED,
) -> Summary:
    """Write a store at `out` from text files, or continue an interrupted one.

    Args:
        inputs: paths, folders, globs and fsspec URLs of txt, jsonl and parquet files, also .gz, .zst, .bz2 and .xz.
        language: BCP 47 code of the text, such as `ko`.
        separator: bytes after every document.
        workers: number of processes; None uses one per core, and 1 starts none. The store does not depend on it.
        shard_bytes: input bytes per shard; None derives it from the size of the corpus.
        overwrite: replace a finished store, or an unfinished one that was begun with other settings.
        max_skipped: share of the non-empty documents that may be skipped. Above it the store is not finished; its
            shards stay for a run with a higher share.

    Raises:
        UserError: the inputs cannot be read or hold no document, too many documents were skipped, or `out` may not be
            written.
    """
    started = time.monotonic()
    out = Path(out)
    if not re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", language):
        raise UserError(f"the language is '{language}', expected a BCP 47 code such as ko, en or zh-Hant")
    if not 0 <= max_skipped <= 1:
        raise UserError(f"max_skipped is {max_skipped}, expected a share from 0 to 1")
    for name, value in (("shard_bytes", shard_bytes), ("workers", workers)):
        if value is not None and value < 1:
            raise UserError(f"{name} is {value}, expected 1 or more")
    check_output(out, overwrite)
    files, left_out = list_files(inputs, reading.format)
    if left_out:
        print(
            f"skipped {len(left_out)} files (hidden, part of a store or of another format), such as {left_out[0]}",
            file=sys.stderr,
        )
    wrong = next((file for file in files if file.format != "txt"), None)
    if reading.document == "file" and wrong:
        raise UserError(f"{wrong.url} is {wrong.format}, expected txt: --document file works with txt only")
    shard_bytes = shard_bytes or default_shard_bytes(files)
    shards = plan_shards(files, reading.document, shard_bytes, partial(check_column, reading.field))
    settings = asdict(reading)
    options = {"language": language, "separator": separator.hex(), "shard_bytes": shard_bytes, **settings}
    made_from = {
        "inputs": list(inputs),
        "files": len(files),
        "bytes": sum(file.size for file in files),
        "options": options,
    }
    out.mkdir(parents=True, exist_ok=True)
    with lock_folder(out):
        begin_store(out, options, files, overwrite)
        earlier = {number: load_report(out, number) for number in range(len(shards))}
        reports = {number: report for number, report in earlier.items() if report}
        shards_found = len(reports)
        size = sum(piece.size for shard in shards for piece in shard)
        found_size = sum(piece.size for number in reports for piece in shards[number])
        with tqdm(
            total=size, initial=found_size, unit="B", unit_scale=True, desc="prepare", disable=None
        ) as progress:
            jobs = {
                number: partial(_make_shard, out, number, separator, shard, reading)
                for number, shard in enumerate(shards)
                if number not in reports
            }
            try:
                reports |= dict(run_jobs(jobs, workers or num_cores(), progress.update))
            except FormatMismatchError:
                if not any(load_report(out, number) for number in range(len(shards))):
                    discard_store(out)
                raise
            except OSError as error:
                raise UserError(
                    f"cannot write to {out}: {error}; finished shards are kept: run the same command again"
                ) from error
        in_order = [reports[number] for number in range(len(shards))]
        # In a split file, line numbers continue from shard to shard; parquet rows are numbered within the file.
        continues = [shard[0].start > 0 and shard[0].file.format != "parquet" for shard in shards]
        if not any(report.shard.documents for report in in_order):
            _refuse_empty(out, in_order)
        _check_skipped(out, in_order, continues, reading, max_skipped)
        problems = merge_shards(out, language, separator, in_order, continues, made_from)
        remove_leftovers(out)
    return Summary(
        documents=sum(report.shard.documents for report in in_order),
        bytes=sum(report.shard.bytes for report in in_order),
        problems=problems,
        shards=len(shards),
        shards_found=shards_found,
        bytes_read=size - found_size,
        seconds=time.monotonic() - started,
    )


def _refuse_empty(out: Path, reports: Sequence[Report]) -> NoReturn:
    """Discard the store and raise `UserError` with the reason why there is no document."""
    causes = ", ".join(f"{count} x {cause}" for cause, count in count_problems(reports).items())
    first = next(iterate_problems(out, reports, [False] * len(reports)), None)
    discard_store(out)
    raise UserError(
        f"found 0 documents ({causes or 'the inputs are empty'}), expected at least one"
        + (f"; first: {first.file}:{first.line}: {first.cause}, {first.detail}" if first else "")
        + ": check the inputs, --format and --field"
    )


def _check_skipped(
    out: Path, reports: Sequence[Report], continues: Sequence[bool], reading: ReadOptions, max_skipped: float
) -> None:
    """Raise `UserError` if more than the share `max_skipped` of the documents were not kept."""
    problems = count_problems(reports)
    lost = count_skipped(problems, reading)
    total = lost + sum(report.shard.documents for report in reports)
    if lost <= max_skipped * total:
        return
    causes = ", ".join(f"{count:,} x {cause}" for cause, count in sorted(problems.items()))
    first = next(iterate_problems(out, reports, continues))
    raise UserError(
        f"{lost:,} of {total:,} documents cannot be kept ({causes}), more than --max-skipped {max_skipped:g} allows; "
        f"first: {first.file}:{first.line}: {first.cause}, {first.detail}: correct the inputs, --format or "
        "--field and add --overwrite, or run the same command with a higher --max-skipped"
    )


def _make_shard(
    out: Path,
    number: int,
    separator: bytes,
    pieces: Sequence[Piece],
    reading: ReadOptions,
    progress: Callable[[int], object],
) -> Report:
    """Write one shard."""

    def batches() -> Iterator[tuple[int, list[bytes], list[Problem], int]]:
        for piece in pieces:
            for first, items in read_documents(piece, reading, progress):
                yield len(items), *filter_documents(piece.file.url, first, items, reading)

    return make_shard(out, number, separator, batches())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm prepare`; `text` is its only subcommand."""
    commands = parser.add_subparsers(dest="what", required=True)
    _add_text_arguments(commands.add_parser("text", help="text files into a store", description=__doc__))


def _add_text_arguments(parser: argparse.ArgumentParser) -> None:
    default = ReadOptions()
    parser.add_argument(
        "inputs", nargs="+", metavar="IN", help="path, folder, glob or URL (s3://, gs://, hf://)"
    )
    parser.add_argument("--out", required=True, metavar="STORE", help="folder of the store")
    parser.add_argument("--language", required=True, help="BCP 47 code, such as ko")
    parser.add_argument("--format", choices=["auto", *get_args(Format)], default=default.format)
    parser.add_argument(
        "--field", default=default.field, help="JSON key or parquet column (default: %(default)s)"
    )
    parser.add_argument(
        "--document",
        choices=["line", "file"],
        default=default.document,
        help="unit of a document in a txt file (default: %(default)s)",
    )
    parser.add_argument(
        "--invalid-utf8",
        choices=get_args(InvalidUtf8),
        default=default.invalid_utf8,
        help="how to treat a document with invalid UTF-8 (default: %(default)s); it is always reported",
    )
    parser.add_argument(
        "--max-document-bytes",
        type=int,
        default=default.max_document_bytes,
        help="longer documents, and longer lines of JSON, are skipped and reported (default: %(default)s)",
    )
    parser.add_argument("--separator", default=r"\n", help=r"text after every document (default: \n)")
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    parser.add_argument(
        "--shard-bytes", type=int, help="input for one shard (default: by the size of the corpus)"
    )
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=MAX_SKIPPED,
        help="share of the documents that may be skipped; above it the store is not finished (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing STORE")


def run(args: argparse.Namespace) -> None:
    """Run `kebyt5-xm prepare text` and print a summary."""
    summary = prepare_text(
        args.inputs,
        args.out,
        args.language,
        ReadOptions(args.format, args.field, args.document, args.invalid_utf8, args.max_document_bytes),
        _unescape(args.separator),
        args.workers,
        args.shard_bytes,
        args.overwrite,
        args.max_skipped,
    )
    _print_problems(Path(args.out))
    rows = [
        ("documents", f"{summary.documents:,}"),
        ("bytes", f"{summary.bytes:,}"),
        *((f"{cause}", f"{count:,}") for cause, count in sorted(summary.problems.items())),
        ("shards", f"{summary.shards:,} ({summary.shards_found:,} of an earlier run)"),
        ("seconds", f"{summary.seconds:,.1f}"),
        ("input MB/s", f"{summary.bytes_read / summary.seconds / 1e6:,.1f}"),
    ]
    for name, value in rows:
        print(f"{name:<14} {value}")
    print(f"next: kebyt5-xm inspect {args.out}")


def _unescape(text: str) -> bytes:
    r"""Decode escapes such as \n, \t and \0, as typed in a shell."""
    try:
        return text.encode("latin-1", "backslashreplace").decode("unicode_escape").encode()
    except UnicodeError as error:
        raise UserError(
            rf"the separator is '{text}', expected text with escapes such as \n: {error}"
        ) from error


def _print_problems(out: Path) -> None:
    shown = list(islice(read_problems(out), PROBLEMS_SHOWN + 1))
    for problem in shown[:PROBLEMS_SHOWN]:
        print(f"{problem.file}:{problem.line}: {problem.cause} ({problem.detail})", file=sys.stderr)
    if len(shown) > PROBLEMS_SHOWN:
        print(f"... and more: {out / ERRORS_NAME} lists all", file=sys.stderr)
