"""From which confidence on answers may be kept unread, as rows of a table."""

from dataclasses import dataclass

from kebyt5_xm.evaluation.report.record import Record
from kebyt5_xm.evaluation.selection import Selection, select
from kebyt5_xm.metrics.bootstrap import Score

PRECISIONS = (0.9, 0.95, 0.99)
"""Wanted shares of right answers. Our own choice."""


@dataclass(frozen=True)
class WantedPrecision:
    """A wanted precision for the answers of a source; `selection` is None if no threshold reaches it."""

    source: str
    precision: float
    selection: Selection | None

    @property
    def expected(self) -> Score | None:
        """The precision to expect with its interval; None if it is not known."""
        if self.selection is None or not self.selection.expected.total:
            return None
        return Score(self.selection.expected.value, *self.selection.expected.interval)


def list_selections(record: Record) -> list[WantedPrecision]:
    """Return the thresholds for `PRECISIONS` of every source whose predictions have a confidence."""
    return [
        WantedPrecision(name, precision, select(answers.judged, precision))
        for name, answers in record.predictions.items()
        if answers.judged
        for precision in PRECISIONS
    ]
