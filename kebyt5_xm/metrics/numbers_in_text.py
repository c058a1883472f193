"""Numbers that answers and references are."""

import re
from collections.abc import Sequence

from kebyt5_xm.errors import UserError

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)


def number(text: str) -> float | None:
    """Return the decimal number that a whole text is, such as "3", "-0.5" or " 3.75 "; None if it is none."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def numbers(metric: str, references: Sequence[Sequence[str]]) -> list[float]:
    """Return the number of each example; raise `UserError` where the references are not one number."""
    found = []
    for row, texts in enumerate(references, 1):
        values = {number(text) for text in texts}
        value = values.pop()
        if values or value is None:
            shown = ", ".join(repr(text[:40]) for text in texts[:3])
            raise UserError(
                f"{metric} needs one number as reference, such as 3.5, found {shown} in held-out example {row}; "
                "use ExactMatch for texts"
            )
        found.append(value)
    return found
