"""The choice of least Bayes risk among samples: the one that is most like all the others by a metric.

Each other sample stands in for the unknown right answer (Eikema and Aziz 2020, arXiv 2005.10283). A single wrong turn
that is probable by itself loses against many answers that agree.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from kebyt5_xm.metrics.metric import Metric


def check_choice(metric: "Metric", n: int) -> None:
    """Raise `UserError` unless `metric` can choose among n answers."""
    from kebyt5_xm.metrics.metric import Metric

    if not isinstance(metric, Metric):
        raise UserError(f"found choose={metric!r}, expected a metric such as kebyt5_xm.metrics.ChrF()")
    if n < 2:
        raise UserError("found choose without n, expected n=8 or so: it chooses among n answers")


def choose_least_risk(texts: Sequence[str], metric: "Metric") -> int:
    """Return the number of the text with the best `metric` against all others; the first of equally good ones.

    A sample that no text can be judged by, such as an empty one for a rate of errors, is only judged itself.
    Raises `UserError` if the metric does not fit such texts or has no value for any of them.
    """
    from kebyt5_xm.metrics.metric import Answer

    if len(set(texts)) == 1 or not any(map(str.strip, texts)):
        return 0
    references = {text for text in texts if _can_judge(metric, text)}
    if not references:
        metric.check([[text] for text in texts], None)
    values: dict[str, float] = {}
    for number, text in enumerate(texts):
        if text not in values:
            others = [
                Answer(text, (other,)) for n, other in enumerate(texts) if n != number and other in references
            ]
            value = metric(others) if others else math.nan
            values[text] = value if metric.higher_is_better else -value
    known = [value for value in values.values() if not math.isnan(value)]
    if not known:
        raise UserError(
            f"found no value of {type(metric).__name__} for any of {len(texts)} answers, expected a metric of single "
            "texts; choose by ChrF() or CharacterErrorRate()"
        )
    return texts.index(next(text for text, value in values.items() if value == max(known)))


def _can_judge(metric: "Metric", text: str) -> bool:
    try:
        metric.check([[text]], None)
    except UserError:
        return False
    return True
