"""When each word of an answer is said: the most probable path through its characters and the silences around words.

Each character is said where the decoder looked while it wrote the character's bytes; silences are where the recording
is quiet. The best path (Viterbi 1967) through both, left to right, gives the times. Attention alone is as coarse as
slots are; the level of the sound finds the beginnings of words after pauses to 10 ms.

Letters in shapes: T bytes, S slots, F frames of `FRAME_SECONDS`, K states.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.model.transcription.loudness import STEPS_PER_SECOND, levels, silence_threshold

STEPS_PER_FRAME = 2
FRAME_SECONDS = STEPS_PER_FRAME / STEPS_PER_SECOND
"""20 ms: shorter than the shortest sounds. Our own choice."""
FLOOR = 1e-3
"""Attention that every slot has: a head may look elsewhere while a character is written. Our own choice."""
SOUND_NATS = 2.0
"""Nats by which a loud frame speaks for a character and a quiet one for silence. Between 1 and 4 the errors of times
are equal, at 0.5 and without it larger (docs/experiments.md)."""
SOFT_DECIBELS = 5.0
"""dB around the threshold of silence in which a frame speaks for neither with full weight."""

Span = tuple[float, float]


def align_words(
    words: Sequence[Sequence[slice]],
    weights: NDArray[np.float32],
    extent: float,
    samples: NDArray[np.float32],
    sample_rate: int,
) -> list[Span]:
    """Return when each word begins and ends, in seconds of the window.

    Args:
        words: the bytes of each character of each word.
        weights: [T, S] how much the decoder looked at each slot while it wrote each byte.
        extent: the share of the window that a slot covers.
        samples: [time] the window.
        sample_rate: in Hz.
    """
    characters = [character for word in words for character in word]
    if not characters:
        return []
    sound = _sound(samples, sample_rate)
    if len(sound) < len(characters):  # more than fifty characters a second: no path, and no speech
        return _evenly(words, len(samples) / sample_rate)
    looked = np.stack([weights[character].mean(axis=0) for character in characters])
    looked /= np.maximum(looked.sum(axis=1, keepdims=True), FLOOR)
    slots = (
        extent * len(samples) / sample_rate * np.arange(0.5, weights.shape[1])
    )  # their middles, in seconds
    frames = FRAME_SECONDS * np.arange(0.5, len(sound))
    looked = np.stack([np.interp(frames, slots, row) for row in looked])
    said = np.log(looked + FLOOR) + sound  # [characters, F]
    silence = np.log(1 / weights.shape[1] + FLOOR) - sound
    rows, is_silence, owners = [silence], [True], [-1]
    row = iter(said)
    for number, word in enumerate(words):
        for _ in word:
            rows.append(next(row))
            is_silence.append(False)
            owners.append(number)
        rows.append(silence)
        is_silence.append(True)
        owners.append(-1)
    path = best_path(np.stack(rows, axis=1), np.array(is_silence))
    spoken = np.array(owners)[path]
    changes = [np.flatnonzero(spoken == number) for number in range(len(words))]
    return [(int(at[0]) * FRAME_SECONDS, (int(at[-1]) + 1) * FRAME_SECONDS) for at in changes]


def best_path(scores: NDArray[np.float64], may_skip: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the state of each frame [F] on the path of the highest sum of `scores` [F, K].

    A path begins in the first state and ends in the last, stays or goes one state on, and may leave out the states
    `may_skip` [K], of which no two are neighbours. There must be at least as many frames as other states.
    """
    frames, states = scores.shape
    never = -np.inf
    best = np.full(states, never)
    best[0] = scores[0, 0]
    if may_skip[0]:
        best[1] = scores[0, 1]
    skips = np.zeros(states, dtype=bool)
    skips[2:] = may_skip[1:-1]
    steps = np.zeros((frames, states), dtype=np.int8)
    for frame in range(1, frames):
        one_on = np.concatenate([[never], best[:-1]])
        two_on = np.where(skips, np.concatenate([[never, never], best[:-2]]), never)
        choices = np.stack([best, one_on, two_on])
        steps[frame] = choices.argmax(axis=0)
        best = choices.max(axis=0) + scores[frame]
    state = states - 1
    if may_skip[-1] and best[-2] > best[-1]:
        state -= 1
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= steps[frame, state]
    return path


def _sound(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Return how much each frame [F] speaks for speech, in nats; negative for silence."""
    found = levels(samples, sample_rate)
    threshold = silence_threshold(found)
    frames = [found[at : at + STEPS_PER_FRAME].max() for at in range(0, len(found), STEPS_PER_FRAME)]
    return np.clip((np.array(frames, dtype=np.float64) - threshold) / SOFT_DECIBELS, -1, 1) * SOUND_NATS


def _evenly(words: Sequence[Sequence[slice]], seconds: float) -> list[Span]:
    counts = np.cumsum([0, *(len(word) for word in words)])
    return [(seconds * first / counts[-1], seconds * last / counts[-1]) for first, last in pairwise(counts)]
