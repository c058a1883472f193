"""Numbers as text: as many digits as are read, the same everywhere."""

import math

from kebyt5_xm.metrics.bootstrap import Score

NONE = "–"


def number(value: float | None) -> str:
    """Return three decimals below ten, fewer above; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NONE
    size = abs(value)
    if math.isinf(size):
        told = "∞"
    elif isinstance(value, int) or size >= 1000:
        told = f"{size:,.0f}"
    elif 0 < size < 0.001:
        told = f"{size:.2g}"
    else:
        told = f"{size:.{3 if size < 10 else 2 if size < 100 else 1}f}"
    return "−" * (value < 0) + told


def signed(value: float | None) -> str:
    """Return as `number`, with a plus before what is above zero."""
    return ("+" if value is not None and value > 0 else "") + number(value)


def interval(score: Score | None, plus: bool = False) -> str:
    """Return `0.978 [0.962, 0.989]`; a dash where there is none."""
    if score is None or math.isnan(score.value):
        return NONE
    told = signed if plus else number
    if math.isnan(score.low) or math.isnan(score.high):
        return told(score.value)
    return f"{told(score.value)} [{told(score.low)}, {told(score.high)}]"


def percent(share: float) -> str:
    """Return a share as a percentage; what is not quite none does not read as none."""
    if math.isnan(share):
        return NONE
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def change(difference: float, start: float) -> str:
    """Return a difference as a signed percentage of the start; a dash where that is nothing."""
    if not start or math.isnan(difference / start):
        return NONE
    return f"{'+' if difference > 0 else '−' if difference < 0 else ''}{abs(100 * difference / start):.1f} %"


def duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds, the two largest of them."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
