"""WebDataset tar shards, read in place: a row is the run of files with one key, through an index of where they lie.

`cat/0001.jpg`, `cat/0001.txt` and `cat/0001.json` are one row of key `cat/0001`. Its columns are `__key__` and the
files' extensions, and what a file holds is told by the last part of its extension, as in WebDataset: texts (`txt`,
`cls` and the like), JSON, whose values are `json.NAME`, and any other is a file for a slot. The extension begins at
the first dot of a name. Links stand for the file that they name. `X.index` beside the shard is made from the headers
alone: what the files hold is not read, nor part of the fingerprint, but for the first and last 64 KiB of the shard.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import Any

import pyarrow

from kebyt5_xm.data.media.bad_sample import RowError
from kebyt5_xm.data.media.reference import Span, contents
from kebyt5_xm.data.tables.arrow_rows import ArrowRows, Contents
from kebyt5_xm.data.tables.json_value import json_value, utf8_text
from kebyt5_xm.data.tables.rows import MAX_ROW_BYTES, Row, names_in_first, names_of
from kebyt5_xm.data.tables.tar_members import KEY, rows_of

TEXT = {"txt", "text", "transcript"}
NUMBER = {"cls", "cls2", "class", "count", "index", "inx", "id"}
JSON = {"json", "jsn"}
"""Extensions that WebDataset decodes as text, as a number (here: as text without the white space), and as JSON."""
SCHEMA = pyarrow.schema(
    [
        (KEY, pyarrow.string()),
        ("names", pyarrow.list_(pyarrow.string())),
        ("starts", pyarrow.list_(pyarrow.uint64())),
        ("sizes", pyarrow.list_(pyarrow.uint64())),
        ("faults", pyarrow.list_(pyarrow.string())),
    ]
)


class TarRows(ArrowRows):
    """The rows of an uncompressed tar shard. Making the index reads its headers once.

    A file is read when its column is used. A row with two files of one extension is refused.
    """

    suffix = ".index"

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The extensions in the first hundred rows, and the names in their JSON."""
        return names_in_first(self, _names)

    def row(self, index: int) -> Mapping[str, Any]:
        found = dict(super().row(index))
        names = found["names"]
        if len(set(names)) < len(names):
            raise self._error(index, f"the key {found[KEY]!r} has two files of one extension: {names}")
        return Row(dict.fromkeys((KEY, *names)), partial(self._column, index, found))

    def _column(self, index: int, found: dict[str, Any], name: str) -> Any:
        if name == KEY:
            return found[KEY]
        at = found["names"].index(name)
        span = Span(str(self.path), found["starts"][at], found["sizes"][at], f"{found[KEY]}.{name}")
        if found["faults"][at] is not None:
            raise self._error(index, f"{span.name} {found['faults'][at]}")
        kind = name.rpartition(".")[2]
        if kind not in TEXT | NUMBER | JSON:
            return span
        if span.size > MAX_ROW_BYTES:
            raise self._error(index, f"{span.name} has {span.size} bytes, expected at most {MAX_ROW_BYTES}")
        raw = contents(span)
        if kind in JSON:
            return self._object(index, span, raw)
        try:
            text = utf8_text(raw)
        except ValueError as error:
            raise self._error(index, f"{span.name} is {error}") from None
        return text.strip() if kind in NUMBER else text.removesuffix("\n").removesuffix("\r")

    def _object(self, index: int, span: Span, raw: bytes) -> dict[str, Any]:
        try:
            found = json_value(raw)
        except ValueError as error:
            raise self._error(index, f"{span.name} is {error}") from None
        if not isinstance(found, dict):
            raise self._error(index, f"{span.name} is a JSON {type(found).__name__}, expected an object")
        return found

    def _error(self, index: int, cause: str) -> RowError:
        return RowError(str(self.path), self.line(index), cause)

    def _contents(self, state: dict[str, Any]) -> Contents:
        rows = list(rows_of(self.path))
        digest = hashlib.blake2b(f"{state['size']} {state['ends']}".encode(), digest_size=16)
        # A row without faults counts as it did before they were told.
        told = [{k: v for k, v in row.items() if k != "faults" or any(v)} for row in rows]
        digest.update(json.dumps(told).encode())
        table = pyarrow.Table.from_pylist(rows, schema=SCHEMA)
        return Contents(digest.hexdigest(), len(rows), SCHEMA, lambda: iter(table.to_batches()))


def _names(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the extensions, then the names in the JSON among them: no other file is read for it."""
    yield from row
    for name in row:
        if name.rpartition(".")[2] in JSON:
            yield from names_of(row[name], f"{name}.")
