"""The files of a corpus, local or behind URLs, and the pieces in which they are read."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, Literal

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from kebyt5_xm.data.text.store import INDEX_NAME, UNFINISHED_NAME
from kebyt5_xm.errors import UserError

Format = Literal["txt", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".txt": "txt",
    ".text": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",  # many corpora name their JSON lines so
    ".parquet": "parquet",
}
Compression = Literal["gz", "zst", "bz2", "xz"]
COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}
STORE_FILES = (INDEX_NAME, UNFINISHED_NAME)  # mark a folder as a text store, not a corpus
MIN_SHARD_BYTES = 32 << 20
MAX_SHARD_BYTES = 16 << 30


@dataclass(frozen=True)
class File:
    """An input file. `size` is in bytes as stored; `version` changes when the file changes."""

    url: str
    format: Format
    compression: Compression | None
    size: int
    version: str


@dataclass(frozen=True)
class Piece:
    """The part of a file that is read at once.

    It is bytes [start, stop) of plain lines, row groups [start, stop) of a parquet file, or the whole file if `stop`
    is None. `size` is its share of the file's bytes. A line belongs to the piece in which it begins.
    """

    file: File
    start: int
    stop: int | None
    size: int


def list_files(inputs: Sequence[str], format: Format | Literal["auto"]) -> tuple[list[File], list[str]]:
    """Return (files, skipped names) for paths, folders, globs and fsspec URLs.

    Folders and globs are expanded in the order of names. From these, hidden files (names that begin with `.` or `_`),
    files of a text store, and files whose names say another format are skipped.

    Raises:
        UserError: no file was found, a name does not show the format, or a file is given twice.
    """
    files: list[File] = []
    left_out: list[str] = []
    for url in inputs:
        found, expanded = _expand(url)
        stores = {
            str(PurePosixPath(name).parent) for name in found if PurePosixPath(name).name in STORE_FILES
        }
        for name, info in sorted(found.items()):
            compression, named_format = _guess_format(name)
            chosen = named_format if format == "auto" else format
            path = PurePosixPath(name)
            unwanted = path.name.startswith((".", "_")) or str(path.parent) in stores
            if expanded and (unwanted or chosen is None or named_format not in (None, chosen)):
                left_out.append(name)
                continue
            if chosen is None:
                raise UserError(
                    f"the name {name} does not show its format; expected --format txt, jsonl or parquet"
                )
            version = next(
                (str(info[key]) for key in ("mtime", "ETag", "etag", "LastModified") if key in info), ""
            )
            files.append(File(name, chosen, compression, info.get("size") or 0, version))
    if not files:
        raise UserError(
            f"found no file to read in {', '.join(inputs)}"
            + (f" (left out {len(left_out)}, such as {left_out[0]}: choose a --format)" if left_out else "")
        )
    seen: set[str] = set()
    for file in files:
        if file.url in seen:
            raise UserError(f"{file.url} is named twice by the inputs; expected every file once: remove one")
        seen.add(file.url)
    return files, left_out


def _expand(url: str) -> tuple[dict[str, dict[str, Any]], bool]:
    """Return (file name -> fsspec's info, whether the input is a folder or a glob) for one input."""
    try:
        fs, path = _resolve(url)
        if fs.isfile(path):
            found, expanded = {path: fs.info(path)}, False
        elif fs.isdir(path):
            found, expanded = fs.find(path, detail=True), True
        elif any(character in path for character in "*?["):
            found, expanded = fs.glob(path, detail=True), True
        else:
            raise UserError(f"found nothing at {url}; expected a file, a folder, a glob or a URL")
    except UserError:
        raise
    except (
        Exception
    ) as error:  # any error of the library that serves the URL: no package, no login, no network
        raise UserError(f"cannot open {url}: {type(error).__name__}: {error}") from error
    is_local = "file" in ([fs.protocol] if isinstance(fs.protocol, str) else fs.protocol)
    files = {
        name if is_local else str(fs.unstrip_protocol(name)): info
        for name, info in found.items()
        if info["type"] == "file"
    }
    if not files:
        raise UserError(f"found no file in {url}")
    return files, expanded


def _guess_format(name: str) -> tuple[Compression | None, Format | None]:
    path = PurePosixPath(name.lower())
    compression = COMPRESSIONS.get(path.suffix)
    return compression, FORMATS.get((path.with_suffix("") if compression else path).suffix)


def default_shard_bytes(files: Sequence[File]) -> int:
    """Return the input bytes of one shard: a 128th of the corpus, between 32 MiB and 16 GiB.

    It depends on the corpus alone, so the store does not depend on the machine. A `Store` keeps 128 shards open.
    """
    return min(max(sum(file.size for file in files) // 128, MIN_SHARD_BYTES), MAX_SHARD_BYTES)


def plan_shards(
    files: Sequence[File],
    document: Literal["line", "file"],
    shard_bytes: int,
    check: Callable[[str, Any], object] = lambda url, schema: None,
) -> list[list[Piece]]:
    """Return the pieces of every shard. Files keep their order; large files are split, small ones share a shard.

    Compressed files and files that are one document are never split. `check` is called with the URL and the pyarrow
    schema of each parquet file that is split, and may raise an error.
    """
    shards: list[list[Piece]] = []
    group: list[Piece] = []
    for file in files:
        pieces = list(_split(file, document, shard_bytes, check))
        if group and (len(pieces) > 1 or sum(piece.size for piece in group) >= shard_bytes):
            shards.append(group)
            group = []
        if len(pieces) > 1:
            shards.extend([piece] for piece in pieces)
        else:
            group.extend(pieces)
    return [*shards, group] if group else shards


def _split(
    file: File, document: Literal["line", "file"], shard_bytes: int, check: Callable[[str, Any], object]
) -> Iterator[Piece]:
    whole = Piece(file, 0, None, file.size)
    if file.size <= shard_bytes or file.compression or document == "file":
        yield whole
    elif file.format == "parquet":
        yield from _split_parquet(file, shard_bytes, check)
    else:
        count = -(-file.size // shard_bytes)
        edges = [file.size * i // count for i in range(count + 1)]
        yield from (Piece(file, a, b, b - a) for a, b in pairwise(edges))


def _split_parquet(file: File, shard_bytes: int, check: Callable[[str, Any], object]) -> Iterator[Piece]:
    import pyarrow
    import pyarrow.parquet

    try:
        with open_file(file.url) as raw:
            metadata = pyarrow.parquet.read_metadata(raw)
    except pyarrow.ArrowInvalid:  # a damaged file is reported when it is read
        yield Piece(file, 0, None, file.size)
        return
    check(file.url, metadata.schema.to_arrow_schema())
    sizes = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    scale = file.size / max(sum(sizes), 1)
    start, size = 0, 0.0
    for i, uncompressed in enumerate(sizes):
        size += uncompressed * scale
        if size >= shard_bytes or i == len(sizes) - 1:
            yield Piece(file, start, i + 1, int(size))
            start, size = i + 1, 0.0


def open_file(url: str) -> Any:
    """Open a path or URL for reading bytes, without decompressing it."""
    fs, path = _resolve(url)
    return fs.open(path, "rb")


def _resolve(url: str) -> tuple[Any, str]:
    """Return (file system, path in it) of a path or URL. An existing local name with "::" or "://" is a path."""
    return (LocalFileSystem(), os.path.abspath(url)) if os.path.exists(url) else url_to_fs(url)
