"""A JSON document that is a table: an array of objects."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kebyt5_xm.data.layouts.json_file import load_json, objects
from kebyt5_xm.data.layouts.layout import Layout, Row
from kebyt5_xm.errors import UserError


class JsonDocuments(Layout):
    """Rows of a JSON document: an array of objects, or an object with the array under a key.

    As published: KLUE's YNAT, STS, NLI and RE (`ynat-v1.1_train.json`, `klue-sts-v1.1_train.json`,
    `klue-nli-v1.1_train.json`, `klue-re-v1.1_train.json`, and `_dev` of each). Objects in objects become columns
    with dots in their names (`labels.real-label`, `subject_entity.word`); arrays of texts or numbers stay lists;
    arrays of anything else are left out, as nothing could be made of them.

    Args:
        key: where the array is, with dots between names within names; the document itself unless given.
        root: the folder of media that a column names, from that of the file.
    """

    def __init__(self, key: str | None = None, root: str = ".") -> None:
        self.key, self.root = key, root

    def read(self, path: Path) -> Iterator[Row]:
        for place, entry in objects(load_json(path), str(path), self.key):
            try:
                row = dict(_flat(entry))
            except RecursionError:
                raise UserError(
                    f"{place} is nested too deeply, expected a row of a table; leave it out"
                ) from None
            # A column that has the dots in its very name goes before what lies within another.
            row.update((name, value) for name, value in entry.items() if name in row)
            yield row


def _flat(entry: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif not isinstance(value, list) or not any(isinstance(item, list | dict) for item in value):
            yield f"{prefix}{name}", value
