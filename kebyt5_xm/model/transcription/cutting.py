"""How long recordings are cut into windows; nothing heavy is imported, since commands show the defaults."""

import math
from dataclasses import dataclass
from numbers import Real

from kebyt5_xm.errors import UserError

AUDIO = "{audio}"
"""The place of the recording in a prompt, and a prompt of the recording alone."""
WINDOW_SECONDS = 30.0
"""Default of the longest window, as in Whisper (Radford et al. 2022, arXiv 2212.04356)."""
BYTES_PER_SECOND = 40
"""Longest answer to a second of speech: fast Korean has 8 syllables of 3 bytes. Our own choice."""
MIN_NEW_TOKENS = 64
OVERLAP_SHARE, MIN_OVERLAP = 0.2, 1.0
"""What two windows have in common if no silence parts them: a share of a window, but at least so many seconds, since
long words need that. Our own choices."""
SHORTEST_OVERLAP = 0.01
"""The steps in which silence is sought, in seconds."""


@dataclass(frozen=True)
class Cutting:
    """How recordings are cut.

    Args:
        window_seconds: longest window: at most the longest recordings of training.
        overlap_seconds: what two windows have in common if no silence parts them; by default a fifth of a window, or
            1 s if that is more, but at most half of a window.
    """

    window_seconds: float = WINDOW_SECONDS
    overlap_seconds: float | None = None

    def __post_init__(self) -> None:
        given = {"window_seconds": self.window_seconds}
        if self.overlap_seconds is not None:
            given["overlap_seconds"] = self.overlap_seconds
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, Real):
                raise UserError(f"found {name} {value!r}, expected a number of seconds")
        if not (math.isfinite(self.window_seconds) and self.window_seconds >= 0.5):
            raise UserError(
                f"found window_seconds {self.window_seconds}, expected 0.5 or more: what recordings of training had"
            )
        if not SHORTEST_OVERLAP <= self.overlap <= self.window_seconds / 2:
            raise UserError(
                f"found overlap_seconds {self.overlap_seconds} for windows of {self.window_seconds:g}, expected at "
                f"least {SHORTEST_OVERLAP} and at most half of a window"
            )

    @property
    def overlap(self) -> float:
        """Seconds that two windows have in common."""
        if self.overlap_seconds is not None:
            return self.overlap_seconds
        return min(max(OVERLAP_SHARE * self.window_seconds, MIN_OVERLAP), self.window_seconds / 2)

    @property
    def max_new_tokens(self) -> int:
        """Longest answer to a window, in bytes."""
        return max(MIN_NEW_TOKENS, math.ceil(self.window_seconds * BYTES_PER_SECOND))
