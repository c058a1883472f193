"""A manifest of answers that `kebyt5-xm teach` wrote, read again."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.generate.output import settings_path
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics.normalization import compose_unicode


@dataclass(frozen=True)
class Line:
    """An answered row. `is_usable` says that the answer is whole and one of the labels, if any are given."""

    row: Mapping[str, Any]
    answer: str
    confidence: float
    is_usable: bool


class Answers:
    """The rows of an answered manifest; `labels` are the answers that are usable (empty: all).

    Raises `UserError` if the table is empty or lacks the columns of answers.
    """

    def __init__(self, path: str, prefix: str, labels: Sequence[str]) -> None:
        self.path = path
        self.rows = open_rows(path)
        self.labels = [compose_unicode(label) for label in labels]
        self._answer, self._confidence, self._reason = (
            f"{prefix}{name}" for name in ("answer", "confidence", "finish_reason")
        )
        for name in (self._answer, self._confidence, self._reason):
            if name not in self.rows.columns:
                raise UserError(
                    f"found no column '{name}' in '{path}', expected a manifest that `kebyt5-xm teach` wrote"
                    f"{did_you_mean(name, self.rows.columns)}"
                )

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Line]:
        """Yield the rows in order. Raises `UserError` for one without an answer or its confidence."""
        for number in range(len(self.rows)):
            row = self.rows.row(number)
            answer, confidence = row.get(self._answer), row.get(self._confidence)
            if (
                not isinstance(answer, str)
                or not isinstance(confidence, int | float)
                or confidence != confidence
            ):
                raise self.rows.error(number, f"found no '{self._answer}' with a '{self._confidence}'")
            is_usable = row.get(self._reason) == "stop"
            if self.labels:
                is_usable = is_usable and compose_unicode(answer.strip()) in self.labels
            yield Line(row, answer, float(confidence), is_usable)

    @property
    def settings(self) -> dict[str, Any] | None:
        """What the answers depend on, without the table; None if it is not known any more."""
        try:
            found = json.loads(settings_path(Path(self.path)).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return (
            {key: value for key, value in found.items() if key != "table"}
            if isinstance(found, dict)
            else None
        )


def read_text(segments: Sequence[Any]) -> str:
    """Return the text of a rendered target. Raises `BadSample` if it holds a medium."""
    if not all(isinstance(segment, str) for segment in segments):
        raise BadSample("the target has a medium, expected text")
    return "".join(segments)
