"""Reads the documents of a piece: lines of text, whole files, lines of JSON, rows of parquet.

Memory use is limited by a block, a batch or the longest document allowed, not by the size of a file.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from kebyt5_xm.data.tables.rows import Row
from kebyt5_xm.data.text.blocks import BLOCK_BYTES, DAMAGE_ERRORS, read_blocks, unreadable_error
from kebyt5_xm.data.text.corpus import Piece, open_file
from kebyt5_xm.data.text.documents import DAMAGED, NO_FIELD, NOT_JSON, NOT_TEXT, TOO_LONG, Fault, ReadOptions
from kebyt5_xm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pyarrow

MAX_BATCH_ROWS = 8192


class FormatMismatchError(UserError):
    """The file's format differs from its name or --format."""


def read_documents(
    piece: Piece, reading: ReadOptions, progress: Callable[[int], object]
) -> Iterator[tuple[int, list[bytes | Fault]]]:
    """Yield (number of the first line, one item per line) for every batch of a piece.

    Lines are numbered from 1 at the start of the piece, rows of parquet from 1 at the start of the file.

    Args:
        progress: called with the number of input bytes read since the last call.

    Raises:
        UserError: the file cannot be read now (network, permission) or lacks the column. A damaged file raises
            nothing: its readable part is yielded, followed by a `Fault`.
    """
    number = 1
    try:
        if piece.file.format == "parquet":
            batches = _read_parquet(piece, reading.field, progress)
        elif reading.document == "file":
            batches = _read_whole_file(read_blocks(piece, progress), reading.max_document_bytes)
        elif piece.file.format == "txt":
            batches = _read_text_lines(read_blocks(piece, progress), reading.max_document_bytes)
        else:
            batches = _read_json_lines(read_blocks(piece, progress), reading, piece)
        for first, items in batches:
            number = (first or number) + len(items)
            yield number - len(items), items
    except DAMAGE_ERRORS as error:
        yield number, [Fault(DAMAGED, f"{type(error).__name__}: {error}")]


def _read_text_lines(
    blocks: Iterable[bytes], max_line_bytes: int
) -> Iterator[tuple[None, list[bytes | Fault]]]:
    for lines in _split_lines(blocks, max_line_bytes):
        yield None, [line[:-1] if type(line) is bytes and line.endswith(b"\r") else line for line in lines]


def _read_json_lines(
    blocks: Iterable[bytes], reading: ReadOptions, piece: Piece
) -> Iterator[tuple[None, list[bytes | Fault]]]:
    blocks = iter(blocks)
    first = next(blocks, b"")
    if piece.start == 0 and first.lstrip().startswith(b"["):
        raise FormatMismatchError(
            f"{piece.file.url} begins as one JSON array, expected one object per line; convert it: "
            "jq -c '.[]' IN > OUT"
        )
    blocks = chain([first], blocks)
    for lines in _split_lines(blocks, reading.max_document_bytes):
        yield (
            None,
            [line if isinstance(line, Fault) else _extract_text(line, reading.field) for line in lines],
        )


def _extract_text(line: bytes, field: str) -> bytes | Fault:
    if not line.strip():
        return b""
    try:
        # Invalid bytes pass through as lone surrogates, so `filter_documents` sees the original bytes.
        record = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return Fault(NOT_JSON, str(error))
    if not isinstance(record, dict):
        return Fault(NOT_JSON, f"{type(record).__name__}, expected an object")
    try:
        text = Row(record, record.__getitem__)[field]  # dots separate nested keys
    except KeyError:
        return Fault(NO_FIELD, f"no '{field}' among {', '.join(record)[:200]}")
    if not isinstance(text, str):
        return Fault(NOT_TEXT, f"'{field}' is {type(text).__name__}")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # an escaped lone surrogate, such as "\ud800"
        return text.encode("utf-8", "surrogatepass")


def _split_lines(blocks: Iterable[bytes], max_line_bytes: int) -> Iterator[list[bytes | Fault]]:
    """Split blocks into lines. For a line beyond the limit only the length is kept."""
    parts: list[bytes] = []
    length = 0
    for block in blocks:
        head, newline, rest = block.partition(b"\n")
        length += len(head)
        if length <= max_line_bytes:
            parts.append(head)
        else:
            parts.clear()
        if newline:
            *lines, tail = rest.split(b"\n")
            if max(map(len, lines), default=0) > max_line_bytes:
                lines = [
                    _join_line([line] if len(line) <= max_line_bytes else [], len(line)) for line in lines
                ]
            yield [_join_line(parts, length), *lines]
            parts, length = [tail], len(tail)
    if length:
        yield [_join_line(parts, length)]


def _join_line(parts: list[bytes], length: int) -> bytes | Fault:
    line = b"".join(parts)
    return line if len(line) == length else Fault(TOO_LONG, f"{length} bytes")


def _read_whole_file(
    blocks: Iterable[bytes], max_document_bytes: int
) -> Iterator[tuple[None, list[bytes | Fault]]]:
    parts: list[bytes] = []
    length = 0
    for block in blocks:
        length += len(block)
        if length <= max_document_bytes + 1:  # one more byte for the line end, which is removed
            parts.append(block)
        else:
            parts.clear()
    document = _join_line(parts, length)
    yield (
        None,
        [document if isinstance(document, Fault) else document.removesuffix(b"\n").removesuffix(b"\r")],
    )


def _read_parquet(
    piece: Piece, field: str, progress: Callable[[int], object]
) -> Iterator[tuple[int, list[bytes | Fault]]]:
    import pyarrow
    import pyarrow.parquet

    number = 1
    left = piece.size
    try:
        with open_file(piece.file.url) as raw:
            file = pyarrow.parquet.ParquetFile(raw, page_checksum_verification=True)
            column = check_column(field, piece.file.url, file.schema_arrow)
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            number += sum(group.num_rows for group in groups[: piece.start])
            for i in range(len(groups))[piece.start : piece.stop]:
                batch_rows = BLOCK_BYTES * groups[i].num_rows // max(groups[i].total_byte_size, 1)
                batch_size = max(1, min(batch_rows, MAX_BATCH_ROWS))
                for batch in file.iter_batches(
                    batch_size, row_groups=[i], columns=[column], use_threads=False
                ):
                    items = _extract_texts(batch.column(0), field[len(column) + 1 :])
                    yield number, items
                    number += len(items)
                    share = piece.file.size * len(items) // max(file.metadata.num_rows, 1)
                    progress(min(share, left))
                    left -= min(share, left)
        progress(left)
    except UserError:
        raise
    except Exception as error:  # any error of pyarrow or of the library that serves the URL
        if isinstance(error, pyarrow.ArrowException) or (type(error) is OSError and error.errno is None):
            progress(left)
            yield number, [Fault(DAMAGED, " ".join(str(error).split()))]
        else:
            raise unreadable_error(piece, error) from error


def check_column(field: str, url: str, schema: "pyarrow.Schema") -> str:
    """Return the parquet column that holds `field`, which may be a nested name (`translation.en`).

    Raises `UserError` if there is no such field.
    """
    from kebyt5_xm.data.tables.arrow_values import find_column, list_column_names

    names = list_column_names(schema)
    if field not in names:
        raise UserError(
            f"{url} has no column '{field}'{did_you_mean(field, names)}; it has {', '.join(names)[:500]}: "
            "choose one with --field"
        )
    return find_column(field, schema.names)


def _select_field(column: "pyarrow.StructArray", name: str) -> "pyarrow.Array":
    """Return the field `name` of a column of objects; it is null where the object is null."""
    from kebyt5_xm.data.tables.arrow_values import find_column

    names = [field.name for field in column.type]
    head = find_column(name, names)
    found = column.flatten()[names.index(head)]
    return found if head == name else _select_field(found, name[len(head) + 1 :])


def _extract_texts(column: "pyarrow.Array", nested_name: str) -> list[bytes | Fault]:
    """Return the texts of a column or, if `nested_name` is given, of that field of its objects."""
    import pyarrow

    from kebyt5_xm.data.tables.arrow_values import to_plain_array, to_plain_type

    column = to_plain_array(column, to_plain_type(column.type))
    if nested_name:
        column = _select_field(column, nested_name)
    if isinstance(column, pyarrow.ExtensionArray):  # such as JSON stored as text
        column = column.storage
    kinds = pyarrow.types
    if not any(
        check(column.type)
        for check in (
            kinds.is_string,
            kinds.is_large_string,
            kinds.is_string_view,
            kinds.is_binary,
            kinds.is_large_binary,
            kinds.is_binary_view,
            kinds.is_fixed_size_binary,
        )
    ):
        return [Fault(NOT_TEXT, f"a column of {column.type}")] * len(column)
    binary = column.cast(pyarrow.large_binary()).to_pylist()
    return [Fault(NOT_TEXT, "null") if value is None else value for value in binary]
