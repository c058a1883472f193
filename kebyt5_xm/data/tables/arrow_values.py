"""Converts Arrow values to Python values, with or without pandas installed.

A float32 or float16 becomes the shortest number that rounds to it (0.1, not 0.10000000149011612). Times in
nanoseconds keep all digits; they become text where Python's own types have too few. Dictionary and run-length
encoding are decoded.
"""

import datetime
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow
import pyarrow.compute
from pyarrow import types

from kebyt5_xm.data.tables.rows import MAX_DEPTH

RECORDING_KEYS = {"array", "sampling_rate"}
"""The keys of a recording as the library `datasets` decodes it."""


def to_plain_type(kind: pyarrow.DataType) -> pyarrow.DataType:
    """Return the type of the decoded values: no dictionaries, run-length encoding or library's extension types."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        views = {pyarrow.string_view(): pyarrow.large_string(), pyarrow.binary_view(): pyarrow.large_binary()}
        return views.get(kind.value_type) or to_plain_type(kind.value_type)  # pyarrow cannot decode to views
    if isinstance(kind, pyarrow.BaseExtensionType) and not kind.extension_name.startswith("arrow."):
        return to_plain_type(kind.storage_type)
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(to_plain_type(field.type)) for field in _list_fields(kind)])
    if types.is_list(kind):
        return pyarrow.list_(kind.value_field.with_type(to_plain_type(kind.value_type)))
    if types.is_large_list(kind):
        return pyarrow.large_list(kind.value_field.with_type(to_plain_type(kind.value_type)))
    if types.is_map(kind):
        item = kind.item_field.with_type(to_plain_type(kind.item_type))
        return pyarrow.map_(kind.key_field.with_type(to_plain_type(kind.key_type)), item)
    return kind


def to_plain_schema(schema: pyarrow.Schema) -> pyarrow.Schema:
    """Return the schema with the plain type of every column and without metadata."""
    return pyarrow.schema([pyarrow.field(field.name, to_plain_type(field.type)) for field in schema])


def to_plain_array(array: pyarrow.Array, kind: pyarrow.DataType) -> pyarrow.Array:
    """Convert a column to its plain type `kind`."""
    if array.type == kind:
        return array
    if isinstance(array, pyarrow.ExtensionArray):
        return to_plain_array(array.storage, kind)
    if types.is_run_end_encoded(array.type):
        return to_plain_array(pyarrow.compute.call_function("run_end_decode", [array]), kind)
    if types.is_dictionary(array.type):
        if array.type.value_type != kind:
            values = to_plain_array(array.dictionary, kind)
            array = pyarrow.DictionaryArray.from_arrays(array.indices, values)
        return array.dictionary_decode()
    return array.cast(kind)


def list_column_names(fields: Iterable[pyarrow.Field]) -> tuple[str, ...]:
    """Return the names of the columns, each followed by the dotted names of its nested fields."""
    return tuple(dict.fromkeys(_iterate_names(fields, "", MAX_DEPTH)))


def _iterate_names(fields: Iterable[pyarrow.Field], prefix: str, depth: int) -> Iterator[str]:
    for field in fields:
        yield f"{prefix}{field.name}"
        if types.is_struct(field.type) and depth > 1:
            yield from _iterate_names(_list_fields(field.type), f"{prefix}{field.name}.", depth - 1)


def find_column(name: str, known: Iterable[str]) -> str:
    """Return the longest `known` column that holds the field `name` (`translation` for `translation.en`)."""
    return max((column for column in known if f"{name}.".startswith(f"{column}.")), key=len)


def _list_fields(kind: pyarrow.DataType) -> list[pyarrow.Field]:
    return [kind.field(index) for index in range(kind.num_fields)]


def to_python(scalar: pyarrow.Scalar) -> Any:
    """Convert a value to Python.

    Raises `ValueError`, `OverflowError` or `ArrowException` if Python cannot hold it, such as a date past 9999.
    """
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if types.is_float32(kind) or types.is_float16(kind):
        return float(str(kind.to_pandas_dtype()(scalar.as_py())))
    if types.is_struct(kind):
        names = [field.name for field in _list_fields(kind)]
        raw = set(names) >= RECORDING_KEYS  # samples need no short digits
        return {name: scalar[name].as_py() if raw else to_python(scalar[name]) for name in names}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return (
            [to_python(item) for item in scalar.values]
            if _needs_conversion(kind.value_type)
            else scalar.as_py()
        )
    if types.is_temporal(kind) and getattr(kind, "unit", None) == "ns":
        return _convert_nanoseconds(scalar)
    return scalar.as_py()


def _needs_conversion(kind: pyarrow.DataType) -> bool:
    """Return whether `to_python` differs from pyarrow's `as_py` for values of this type."""
    if types.is_struct(kind):
        return True
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _needs_conversion(kind.value_type)
    return types.is_float32(kind) or types.is_float16(kind) or getattr(kind, "unit", None) == "ns"


def _convert_nanoseconds(scalar: Any) -> Any:
    """Convert a timestamp, time or duration in nanoseconds; to text if the last three digits are not zero.

    pyarrow's own conversion returns pandas types if pandas is installed, and otherwise truncates or fails.
    """
    microseconds, rest = divmod(scalar.value, 1000)
    kind = scalar.type
    if types.is_timestamp(kind):
        kind = pyarrow.timestamp("us", kind.tz)
    else:
        kind = pyarrow.time64("us") if types.is_time(kind) else pyarrow.duration("us")
    found = pyarrow.scalar(microseconds, pyarrow.int64()).cast(kind).as_py()
    if not rest:
        return found
    if isinstance(found, datetime.datetime):
        text, end = found.isoformat(" ", "microseconds"), len("YYYY-MM-DD hh:mm:ss.ffffff")
    elif isinstance(found, datetime.time):
        text, end = found.isoformat("microseconds"), len("hh:mm:ss.ffffff")
    else:
        text = str(found) if found.microseconds else f"{found}.000000"
        end = len(text)
    return f"{text[:end]}{rest:03}{text[end:]}"
