"""Cuts a recording of any length into windows: at silences where there are some, else with an overlap.

At most one window and one block are in memory. Times are in samples of the recording unless a name says seconds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.model.transcription.loudness import (
    STEPS_PER_SECOND,
    find_speech,
    levels,
    longest_silence,
    quietest,
    step_start,
)

MARGIN_SECONDS = 0.2
"""Silence that stays before and after speech, since many a word begins below the threshold. Our own choice."""


@dataclass(frozen=True)
class Window:
    """A part of a recording that is transcribed by itself.

    Args:
        samples: float32 [time].
        start: where it begins in the recording.
        sample_rate: in Hz.
    """

    samples: NDArray[np.float32]
    start: int
    sample_rate: int

    @property
    def start_seconds(self) -> float:
        """Where it begins in the recording."""
        return self.start / self.sample_rate

    @property
    def stop_seconds(self) -> float:
        """Where it ends in the recording."""
        return (self.start + len(self.samples)) / self.sample_rate


def cut_windows(
    blocks: Iterable[NDArray[np.float32]], sample_rate: int, window_seconds: float, overlap_seconds: float
) -> Iterator[Window]:
    """Yield the windows of a recording, each at most `window_seconds` long, in order.

    A window ends in the longest silence of its second half. Without one, it ends after the place where it is
    quietest, the next begins before it, and both have `overlap_seconds` in common. Silence at the ends of a window is
    left out, and windows of silence alone are not yielded.

    `blocks` are float32 [time]; the overlap must be at most half of a window.
    """
    longest, overlap = int(window_seconds * sample_rate), int(overlap_seconds * sample_rate)
    assert 0 < 2 * overlap <= longest, (window_seconds, overlap_seconds)
    # Blocks are joined when they fill a window: one by one, long windows would take quadratic time.
    waiting: list[NDArray[np.float32]] = []
    num_samples, start = 0, 0
    for block in blocks:
        waiting.append(block)
        num_samples += len(block)
        if num_samples <= longest:
            continue
        held = np.concatenate(waiting)
        while len(held) > longest:
            stop, keep_from = _cut(held[:longest], sample_rate, overlap)
            if window := _trim(held[:stop], start, sample_rate):
                yield window
            held, start = held[keep_from:], start + keep_from
        waiting, num_samples = [held], len(held)
    if num_samples and (window := _trim(np.concatenate(waiting), start, sample_rate)):
        yield window


def _cut(samples: NDArray[np.float32], sample_rate: int, overlap: int) -> tuple[int, int]:
    """Return where a window ends, and where the next begins."""
    found = levels(samples, sample_rate)
    half = len(found) // 2
    silence = longest_silence(found, half)
    if silence is not None:
        middle = step_start((silence.start + silence.stop) // 2, sample_rate)
        return middle, middle
    last = len(found) - overlap * STEPS_PER_SECOND // sample_rate
    place = step_start(quietest(found, half, last), sample_rate)
    return place + overlap // 2, place - overlap // 2


def _trim(samples: NDArray[np.float32], start: int, sample_rate: int) -> Window | None:
    speech = find_speech(levels(samples, sample_rate))
    if speech is None:
        return None
    margin = int(MARGIN_SECONDS * sample_rate)
    first = max(0, step_start(speech.start, sample_rate) - margin)
    last = min(len(samples), step_start(speech.stop, sample_rate) + margin)
    return Window(samples[first:last], start + first, sample_rate)
