"""Excerpts: a recording from a start on, for a length; both in seconds.

Sample numbers are computed in decimal arithmetic, so that an excerpt begins at exactly the sample at which one before
it ends, whichever way the two times were written.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from kebyt5_xm.data.media.bad_sample import MediaRefusal
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from kebyt5_xm.data.media.reference import Readable

MAX_OVERSHOOT = 0.5
"""Seconds by which an excerpt may end behind its recording; it then ends with it, because written times are rounded.
The default of Kaldi's extract-segments (`--max-overshoot`)."""
MAX_SECONDS = 1e7
"""A time above this (115 days) is not one in seconds. Our own choice."""


@dataclass(frozen=True)
class Excerpt:
    """The recording in `source` from `start` on, for `seconds` or, if None, to its end.

    `source` is what a row names, or what may be opened for it. Raises `UserError` for a time that is not a number of
    seconds, and for a length of 0.
    """

    source: "Readable"
    start: float
    seconds: float | None = None

    def __post_init__(self) -> None:
        try:
            parse_seconds(self.start)
            is_empty = self.seconds is not None and parse_seconds(self.seconds) == 0
        except ValueError as error:
            raise UserError(f"found an excerpt from {self.start!r} for {self.seconds!r}, {error}") from None
        if is_empty:
            raise UserError("found an excerpt of 0 seconds, expected a longer one, or None to the end")

    def bounds(self, num_samples: int, sample_rate: int) -> tuple[int, int]:
        """Return the first sample, and the one behind the last, in a recording of `num_samples` at `sample_rate` Hz.

        Times are rounded to the nearest sample. Raises `MediaRefusal` if the excerpt begins behind the recording's
        end, ends more than `MAX_OVERSHOOT` seconds behind it, or is shorter than a sample.
        """
        start = Decimal(str(self.start))
        begin, stop = round(start * sample_rate), num_samples
        if self.seconds is not None:
            stop = round((start + Decimal(str(self.seconds))) * sample_rate)
        if begin >= num_samples or stop > num_samples + MAX_OVERSHOOT * sample_rate:
            raise MediaRefusal(
                f"found a recording of {num_samples / sample_rate:.3f} s, expected one that holds {self.describe()}; "
                "correct the row's times, which are in seconds"
            )
        stop = min(stop, num_samples)
        if stop <= begin:
            raise MediaRefusal(
                f"found no sample from {self.start:g} s on for {self.seconds:g} s, expected at least one; correct "
                "the row's times, which are in seconds"
            )
        return begin, stop

    def describe(self) -> str:
        """Return the times in words: `12.5 to 15.25 s`."""
        if self.seconds is None:
            return f"{self.start:.10g} s to its end"
        return f"{self.start:.10g} to {float(Decimal(str(self.start)) + Decimal(str(self.seconds))):.10g} s"


def parse_seconds(value: Any) -> float:
    """Return a time in a row, a number or its text, as seconds from 0 on.

    Raises `ValueError` with what was expected.
    """
    try:
        seconds = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"expected seconds as a number from 0 to {MAX_SECONDS:,.0f}")
    return seconds
