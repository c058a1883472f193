"""JSON documents, and the objects in them, with errors that say where."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.data.tables.json_value import json_value
from kebyt5_xm.errors import UserError, did_you_mean


def load_json(path: Path) -> Any:
    """Return the value in a JSON file in UTF-8; raise `UserError` with the line if there is none."""
    raw = path.read_bytes()
    try:
        return json_value(raw)
    except ValueError as error:
        cause = error.__context__
        if isinstance(cause, UnicodeDecodeError):
            line = raw.count(b"\n", 0, cause.start) + 1
            raise UserError(f"line {line} of {path} is not UTF-8 ({error}); convert the file") from None
        if isinstance(cause, json.JSONDecodeError):
            raise UserError(
                f"line {cause.lineno} of {path} is not JSON ({cause.msg} at character {cause.colno}); expected one "
                "whole document: get it again, or leave `format` out if each line is an object"
            ) from None
        raise UserError(
            f"cannot read {path}: {error}; expected a table of objects: correct the file"
        ) from None


def objects(value: Any, place: str, key: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) of an array of objects, which stands under `key` if one is given.

    Args:
        place: names the value in errors, such as a file or "paragraph 3 of entry 7 of FILE".
        key: names within names are parted by dots.

    Raises:
        UserError: there is no such key, or no array of objects behind it.
    """
    for name in key.split(".") if key else []:
        found = list(value) if isinstance(value, dict) else []
        if name not in found:
            raise UserError(
                f"found no '{name}' in {place}, expected it{_among(found)}{did_you_mean(name, found)}; is it another "
                "file, or another key?"
            )
        value = value[name]
    if not isinstance(value, list):
        behind = f" under '{key}'" if key else ""
        hint = f"{_among(list(value))}; name one as the key" if isinstance(value, dict) and not key else ""
        raise UserError(
            f"found a JSON {type(value).__name__} in {place}{behind}, expected an array of objects{hint}"
        )
    for number, item in enumerate(value, 1):
        at = f"entry {number}{f' of {key}' if key else ''} in {place}"
        if not isinstance(item, dict):
            raise UserError(f"{at} is a JSON {type(item).__name__}, expected an object")
        yield at, item


def _among(names: list[str]) -> str:
    return f" among {', '.join(names[:12])}" if names else ""
