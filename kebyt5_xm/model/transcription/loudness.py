"""Which parts of a recording are silence, by its level in steps of 10 ms."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS_PER_SECOND = 100
FLOOR = -100.0
"""dB of full scale of digital silence, which has no level."""
SILENT = -60.0
"""dB of full scale below which everything is silence: what 16-bit recordings of quiet rooms have. Our own choice."""
MIN_RANGE = 15.0
"""dB between the quiet and the loud of a window. With less, noise and speech are alike, and all is speech."""
SHARE = 0.35
"""Where the threshold lies between the quiet (0) and the loud (1) of a window, in dB. Our own choice."""
LOUD_STEPS = 10
"""The loud of a window is the level that so many steps reach: the shortest words have as many."""
MIN_SILENCE = 12
"""Steps of a silence in which a window may be cut: closures of plosives are shorter (Byrd 1993: under 100 ms)."""
SMOOTHING = 5
"""Steps over which the quietest place is sought."""


def levels(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """Return the level of every 10 ms [steps] in dB of full scale; a rest shorter than a step has its own.

    Step k begins at sample `step_start(k, sample_rate)`. Their median is taken off: a constant is no sound.
    """
    if not len(samples):
        return np.zeros(0, dtype=np.float32)
    starts = step_start(np.arange(-(-len(samples) * STEPS_PER_SECOND // sample_rate)), sample_rate)
    sums = np.add.reduceat((samples - np.median(samples).astype(np.float64)) ** 2, starts)
    counts = np.diff(np.append(starts, len(samples)))
    return (10 * np.log10(np.maximum(sums / counts, 10 ** (FLOOR / 10)))).astype(np.float32)


def step_start(step: Any, sample_rate: int) -> Any:
    """Return the first sample of a step, or of each in an array."""
    return step * sample_rate // STEPS_PER_SECOND


def silence_threshold(found: NDArray[np.float32]) -> float:
    """Return the level below which the steps of a window are silence, in dB."""
    quiet = float(np.percentile(found, 5))
    loud = float(np.sort(found)[-min(LOUD_STEPS, len(found))])
    if loud < SILENT:
        return SILENT
    if loud - quiet < MIN_RANGE:
        return min(quiet, SILENT)
    return max(SILENT, quiet + SHARE * (loud - quiet))


def find_speech(found: NDArray[np.float32]) -> slice | None:
    """Return the steps from the first to the last that are no silence; None if there are none."""
    loud = np.flatnonzero(found >= silence_threshold(found))
    return slice(int(loud[0]), int(loud[-1]) + 1) if len(loud) else None


def longest_silence(found: NDArray[np.float32], first: int) -> slice | None:
    """Return the longest run of silent steps from `first` on, the last of equal ones; None if all are short."""
    silent = np.concatenate([[False], found[first:] < silence_threshold(found), [False]])
    changes = np.flatnonzero(np.diff(silent.astype(np.int8)))
    starts, stops = changes[::2], changes[1::2]
    if not len(starts):
        return None
    lengths = stops - starts
    best = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return (
        slice(first + int(starts[best]), first + int(stops[best])) if lengths[best] >= MIN_SILENCE else None
    )


def quietest(found: NDArray[np.float32], first: int, last: int) -> int:
    """Return the step from `first` to before `last` around which it is quietest."""
    smoothed = np.convolve(found, np.ones(SMOOTHING) / SMOOTHING, mode="same")
    return first + int(np.argmin(smoothed[first:last])) if last > first else first
