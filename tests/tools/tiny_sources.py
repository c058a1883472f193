"""A third-party source, as docs/sources.md shows it."""

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data import Example, Part, Selection, Source
from kebyt5_xm.metrics import Accuracy

HELD_OUT = 7


class Sums(Source):
    """`3+4=` -> `7` for all pairs of numbers below `limit`; the last seven pairs are held out.

    Args:
        limit: numbers are below it.
        weight: share of this source's examples, relative to the other sources.
    """

    def __init__(self, limit: int = 10, weight: float = 1.0) -> None:
        self.limit = limit
        self.weight = weight
        self.metrics = [Accuracy()]

    def parts(self) -> list[Part]:
        return [Part("", self.limit**2 - HELD_OUT, 1.0, fingerprint=f"sums below {self.limit}")]

    def validation_parts(self) -> list[Part]:
        return [Part("", HELD_OUT, 1.0, fingerprint=f"last sums below {self.limit}")]

    def load(self, selection: Selection) -> list[Example]:
        return [Example.of_texts(*self.texts(row, selection.held_out)) for row in selection.row.tolist()]

    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        texts = [self.texts(row, selection.held_out) for row in selection.row.tolist()]
        return np.asarray([[len(sum_) + 1, len(result) + 1] for sum_, result in texts]).reshape(-1, 2)

    def settings(self) -> dict[str, object]:
        return {"limit": self.limit}

    def references(self, part: int, row: int) -> tuple[str, ...]:
        return (self.texts(row, held_out=True)[1],)

    def texts(self, row: int, held_out: bool) -> tuple[str, str]:
        first, second = divmod(row + held_out * (self.limit**2 - HELD_OUT), self.limit)
        return f"{first}+{second}=", str(first + second)
