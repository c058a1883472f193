"""The layout of NeMo's manifests of speech."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.data.layouts.json_documents import flatten
from kebyt5_xm.data.layouts.layout import LINE, Layout, Row
from kebyt5_xm.data.layouts.text_lines import read_lines
from kebyt5_xm.data.tables.json_value import parse_json
from kebyt5_xm.errors import UserError

PATH = "audio_filepath"


class NeMo(Layout):
    """One row per line: `audio_filepath`, `offset` and `duration` in seconds, `text`, and the line's other keys.

    Published form (NVIDIA NeMo, "Preparing Custom ASR Data"): an object a line, with `audio_filepath`, absolute or
    relative to the manifest, `duration` and `text`; `offset` if the row begins later than its recording. A row is
    that stretch of the recording; a missing offset is 0, and without a duration the row goes on to the end.

    Args:
        root: the folder that paths are relative to, given relative to the manifest's folder.

    Raises `UserError` for a line that is no object with `audio_filepath`.
    """

    offset, duration = "offset", "duration"

    def __init__(self, root: str = ".") -> None:
        self.root = root

    def read(self, path: Path) -> Iterator[Row]:
        for number, line in read_lines(path):
            if not line.strip():
                continue
            try:
                entry = flatten(_parse(line))
            except (ValueError, RecursionError) as error:
                cause = str(error) if isinstance(error, ValueError) else "nested too deeply"
                raise UserError(
                    f"line {number} of {path} is {cause}, expected an object with '{PATH}'; give a manifest of NeMo, "
                    "or correct `format`"
                ) from None
            times = {name: _time(entry.get(name)) for name in ("offset", "duration")}
            yield {PATH: None, "text": None, **entry, **times, LINE: number}


def _parse(line: str) -> dict[str, Any]:
    """Return the object in a line; raise `ValueError` with what was found instead."""
    entry = parse_json(line.encode("utf-8", "surrogatepass"))
    if not isinstance(entry, dict):
        raise ValueError(f"a JSON {type(entry).__name__}")
    if PATH not in entry:
        raise ValueError(f"an object with the keys {', '.join(entry)[:200] or 'none'}")
    return entry


def _time(value: Any) -> float | str | None:
    """Return a time so that its column has one type. What is no number stays, as text: its row is refused later."""
    if value is None or isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else str(value)
