"""Reads UTF-8 and JSON: values, whole documents and their arrays of objects, with errors that name the place."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.errors import UserError, did_you_mean

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BYTE_ORDER_MARK = "\ufeff"


def decode_utf8(raw: bytes) -> str:
    """Decode `raw` and drop a byte order mark. Raises `ValueError` with the cause if it is not UTF-8."""
    try:
        return raw.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        found = "UTF-16, expected" if raw.startswith(UTF_16) else "not"
        raise ValueError(f"{found} UTF-8: {error.reason} at byte {error.start}") from None


def parse_json(raw: bytes) -> Any:
    """Parse JSON in UTF-8, with or without a byte order mark.

    NaN and infinities, which Python and pandas write although JSON has none, are read as such; an example that uses
    one is refused later. Raises `ValueError` with the cause if `raw` is not JSON.
    """
    text = decode_utf8(raw)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("not readable JSON: it is nested too deeply") from None
    except ValueError:  # sys.set_int_max_str_digits
        raise ValueError("not readable JSON: it has a whole number of more than 4300 digits") from None


def load_json(path: Path) -> Any:
    """Parse a JSON file in UTF-8; raise `UserError` with the line if it is not valid."""
    raw = path.read_bytes()
    try:
        return parse_json(raw)
    except ValueError as error:
        cause = error.__context__
        if isinstance(cause, UnicodeDecodeError):
            line = raw.count(b"\n", 0, cause.start) + 1
            raise UserError(f"line {line} of {path} is not UTF-8 ({error}); convert the file") from None
        if isinstance(cause, json.JSONDecodeError):
            raise UserError(
                f"line {cause.lineno} of {path} is not JSON ({cause.msg} at character {cause.colno}); expected one "
                "whole document: get it again, or remove `format` if each line is an object"
            ) from None
        raise UserError(
            f"cannot read {path}: {error}; expected a table of objects: correct the file"
        ) from None


def iterate_objects(value: Any, place: str, key: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) for every entry of an array of objects.

    Args:
        place: names `value` in errors, such as a file or "paragraph 3 of entry 7 of FILE".
        key: where the array is, with dots between nested keys; `value` itself if not given.

    Raises:
        UserError: the key is missing, or its value is not an array of objects.
    """
    for name in key.split(".") if key else []:
        found = list(value) if isinstance(value, dict) else []
        if name not in found:
            raise UserError(
                f"found no '{name}' in {place}, expected it{_list_found(found)}{did_you_mean(name, found)}; correct "
                "the key, or give another file"
            )
        value = value[name]
    if not isinstance(value, list):
        behind = f" under '{key}'" if key else ""
        hint = (
            f"{_list_found(list(value))}; name one as the key" if isinstance(value, dict) and not key else ""
        )
        raise UserError(
            f"found a JSON {type(value).__name__} in {place}{behind}, expected an array of objects{hint}"
        )
    for number, item in enumerate(value, 1):
        at = f"entry {number}{f' of {key}' if key else ''} in {place}"
        if not isinstance(item, dict):
            raise UserError(f"{at} is a JSON {type(item).__name__}, expected an object")
        yield at, item


def _list_found(names: list[str]) -> str:
    return f" among {', '.join(names[:12])}" if names else ""
