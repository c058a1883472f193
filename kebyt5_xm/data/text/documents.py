"""Decides which documents a store keeps, and gives a cause for every document that it drops."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeGuard

from kebyt5_xm.data.text.corpus import Format

TOO_LONG, NUL, INVALID = "too long", "NUL byte", "invalid UTF-8"
NOT_JSON, NO_FIELD, NOT_TEXT, DAMAGED = "not JSON", "no field", "not text", "damaged file"
EMPTY = "empty"
InvalidUtf8 = Literal["skip", "keep", "replace"]


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read.

    Attributes:
        format: of every input, or "auto" to take it from each file's name.
        field: the key of a JSON line, or the parquet column, that holds the text.
        document: the unit of a document in a txt file, a line or the whole file.
        invalid_utf8: whether a document with invalid UTF-8 is skipped, kept unchanged, or kept with U+FFFD for the
            invalid bytes. It is counted and listed in every case.
        max_document_bytes: longer documents, and longer lines of JSON, are skipped; they are never held in memory,
            except in parquet.
    """

    format: Format | Literal["auto"] = "auto"
    field: str = "text"
    document: Literal["line", "file"] = "line"
    invalid_utf8: InvalidUtf8 = "skip"
    max_document_bytes: int = 64 << 20


def count_skipped(problems: Mapping[str, int], reading: ReadOptions) -> int:
    """Return how many documents with a problem were not kept. `problems` counts by cause."""
    kept_cause = INVALID if reading.invalid_utf8 != "skip" else None
    return sum(count for cause, count in problems.items() if cause not in (EMPTY, kept_cause))


class Fault(NamedTuple):
    """Replaces a document that could not be read."""

    cause: str
    detail: str


class Problem(NamedTuple):
    """A line of `errors.jsonl`; `line` counts from 1 (rows, in a parquet file)."""

    file: str
    line: int
    cause: str
    detail: str


def filter_documents(
    file: str, number: int, items: list[bytes | Fault], reading: ReadOptions
) -> tuple[list[bytes], list[Problem], int]:
    """Return (documents to keep, problems, number of empty documents) of a batch.

    A document of white space alone is empty, such as a blank line between paragraphs. It is not a problem.
    """
    filled = [item for item in items if isinstance(item, Fault) or item.strip()]
    num_empty = len(items) - len(filled)
    if _are_clean(filled, reading.max_document_bytes):
        return filled, [], num_empty
    kept: list[bytes] = []
    problems: list[Problem] = []
    for line, item in enumerate(items, start=number):
        fault = item if isinstance(item, Fault) else find_fault(item, reading.max_document_bytes)
        if fault:
            problems.append(Problem(file, line, *fault))
        if isinstance(item, bytes) and item.strip():
            if fault is None or (fault.cause == INVALID and reading.invalid_utf8 == "keep"):
                kept.append(item)
            elif fault.cause == INVALID and reading.invalid_utf8 == "replace":
                kept.append(item.decode("utf-8", "replace").encode())
    return kept, problems, num_empty


def _are_clean(items: list[bytes | Fault], max_document_bytes: int) -> TypeGuard[list[bytes]]:
    """Check a whole batch at once. This is several times faster than one by one, and most batches pass."""
    documents = [item for item in items if isinstance(item, bytes)]
    if len(documents) < len(items) or max(map(len, documents), default=0) > max_document_bytes:
        return False
    joined = b"\n".join(documents)
    return b"\0" not in joined and (joined.isascii() or _find_invalid_utf8(joined) is None)


def find_fault(document: bytes, max_document_bytes: int | None = None) -> Fault | None:
    """Return the fault of a document, or None."""
    if max_document_bytes is not None and len(document) > max_document_bytes:
        return Fault(TOO_LONG, f"{len(document)} bytes")
    if (position := document.find(b"\0")) >= 0:
        return Fault(NUL, f"at byte {position}")
    if (position := _find_invalid_utf8(document)) is not None:
        return Fault(INVALID, f"0x{document[position]:02x} at byte {position}")
    return None


def _find_invalid_utf8(data: bytes) -> int | None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start
    return None
