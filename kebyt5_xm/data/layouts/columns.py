"""Converts rows to Arrow columns and tolerates mixed types, so that one odd value does not fail the whole file.

A column that mixes numbers and texts, or integers and floats, becomes text, as in a prompt. A single value in a
column of lists becomes a list of one. A lone surrogate, and NaN or infinity among texts, become null.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow

from kebyt5_xm.errors import UserError

INTEGER_LIMIT = 1 << 63
"""Integers whose absolute value reaches this are stored as text."""


def widen_schema(schema: pyarrow.Schema, rows: Sequence[Mapping[str, Any]], path: Path) -> pyarrow.Schema:
    """Return `schema`, widened to hold `rows` too.

    Raises `UserError` for a column of anything but texts, numbers, lists of these, or bytes.
    """
    types = {field.name: field.type for field in schema}
    for name in dict.fromkeys(name for row in rows for name in row):
        found = _find_type([row.get(name) for row in rows], name, path)
        types[name] = _widen_type(types.get(name, pyarrow.null()), found, name, path)
    return pyarrow.schema(list(types.items()))


def make_batch(rows: Sequence[Mapping[str, Any]], schema: pyarrow.Schema) -> pyarrow.RecordBatch:
    """Convert rows to a batch. `schema` must come from `widen_schema` and cover these rows."""
    columns = [_make_array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pyarrow.RecordBatch.from_arrays(columns, schema=schema)


def _make_array(values: list[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    try:
        return pyarrow.array(values, kind)
    except (pyarrow.ArrowException, UnicodeEncodeError):  # some values have another type
        return pyarrow.array([_convert(value, kind) for value in values], kind)


def _find_type(values: list[Any], name: str, path: Path) -> pyarrow.DataType:
    """Return the type that holds all the values of a column."""
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pyarrow.null()
    if kinds & {list, tuple}:
        items = [item for value in values if value is not None for item in _as_list(value)]
        return pyarrow.list_(_find_type(items, name, path))
    if kinds <= {bool}:
        return pyarrow.bool_()
    if kinds <= {int} and all(abs(value) < INTEGER_LIMIT for value in values if value is not None):
        return pyarrow.int64()
    if kinds <= {float}:
        return pyarrow.float64()
    if kinds <= {bool, int, float, str}:
        return pyarrow.string()
    if kinds <= {bytes}:
        return pyarrow.large_binary()
    raise _mixed_types_error(name, path, sorted(kind.__name__ for kind in kinds))


def _widen_type(first: pyarrow.DataType, second: pyarrow.DataType, name: str, path: Path) -> pyarrow.DataType:
    if first == second or pyarrow.types.is_null(second):
        return first
    if pyarrow.types.is_null(first):
        return second
    if pyarrow.types.is_list(first) or pyarrow.types.is_list(second):
        return pyarrow.list_(_widen_type(_item_type(first), _item_type(second), name, path))
    both = {first, second}
    if both <= {pyarrow.bool_(), pyarrow.int64(), pyarrow.float64(), pyarrow.string()}:
        return pyarrow.string()
    raise _mixed_types_error(name, path, [str(first), str(second)])


def _item_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    return kind.value_type if pyarrow.types.is_list(kind) else kind


def _mixed_types_error(name: str, path: Path, kinds: list[str]) -> UserError:
    return UserError(
        f"found {' and '.join(kinds)} in the column '{name}' of {path}, expected texts and numbers, or lists of "
        "these, in every row; leave the column out of the rows"
    )


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _convert(value: Any, kind: pyarrow.DataType) -> Any:
    if value is None or pyarrow.types.is_null(kind):
        return None
    if pyarrow.types.is_list(kind):
        return [_convert(item, kind.value_type) for item in _as_list(value)]
    if pyarrow.types.is_floating(kind):
        return float(value)
    if not pyarrow.types.is_string(kind):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text
