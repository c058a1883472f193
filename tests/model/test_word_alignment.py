"""Times of words from attention and sound, on made-up attention."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from kebyt5_xm.model.transcription.alignment import align_words, best_path

RATE = 8000


def sound(*spoken: tuple[float, float], seconds: float) -> NDArray[np.float32]:
    samples = np.random.default_rng(3).standard_normal(int(seconds * RATE)).astype(np.float32) * 1e-4
    for start, stop in spoken:
        samples[int(start * RATE) : int(stop * RATE)] *= 1000
    return samples


def looking(*places: float, slots: int, width: float = 0.8) -> NDArray[np.float32]:
    """Return attention [T, slots] of bytes that look around the slots `places`."""
    distance = np.arange(slots)[None] - np.array(places)[:, None]
    weights = np.exp(-0.5 * (distance / width) ** 2) + 0.01
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


ONE_BYTE_WORDS = [[slice(0, 1)], [slice(1, 2)], [slice(2, 3)]]


def test_words_begin_and_end_with_their_sounds() -> None:
    spoken = [(0.31, 0.57), (0.86, 1.2), (1.33, 1.7)]
    weights = looking(4, 10, 15, slots=20)  # of 0.1 s
    found = align_words(ONE_BYTE_WORDS, weights, 1 / 20, sound(*spoken, seconds=2.0), RATE)
    for (start, stop), (begins, ends) in zip(found, spoken, strict=True):
        assert start == pytest.approx(begins, abs=0.021)
        assert stop == pytest.approx(ends, abs=0.021)


def test_attention_parts_words_without_a_pause() -> None:
    weights = looking(4, 10, 15, slots=20)
    found = align_words(ONE_BYTE_WORDS, weights, 1 / 20, sound((0.0, 2.0), seconds=2.0), RATE)
    assert [start for start, _ in found][1:] == pytest.approx([0.75, 1.3], abs=0.1)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(found))


def test_attention_decides_which_sound_is_a_word() -> None:
    """Of three sounds, a cough between two words is nobody's."""
    spoken = [(0.2, 0.5), (0.9, 1.1), (1.5, 1.8)]
    words = [[slice(0, 1), slice(1, 2)], [slice(2, 3), slice(3, 4)]]
    weights = looking(2.5, 4, 15.5, 17, slots=20)
    (_, first_stop), (second_start, _) = align_words(
        words, weights, 1 / 20, sound(*spoken, seconds=2.0), RATE
    )
    assert first_stop == pytest.approx(0.5, abs=0.05) or first_stop < 0.9
    assert second_start == pytest.approx(1.5, abs=0.05)


def test_bytes_of_a_character_count_together() -> None:
    words = [[slice(0, 3)], [slice(4, 7)]]
    weights = looking(3, 3, 3, 0, 14, 14, 14, slots=20)
    (start, _), (after, _) = align_words(
        words, weights, 1 / 20, sound((0.2, 0.5), (1.3, 1.6), seconds=2.0), RATE
    )
    assert start == pytest.approx(0.2, abs=0.021)
    assert after == pytest.approx(1.3, abs=0.021)


def test_no_words_and_too_many() -> None:
    assert align_words([], looking(1, slots=3), 1 / 3, sound((0.0, 1.0), seconds=1.0), RATE) == []
    many = [[slice(number, number + 1)] for number in range(60)]
    found = align_words(many, looking(*range(60), slots=60), 1 / 60, sound((0, 0.6), seconds=0.6), RATE)
    assert found[0] == (0.0, pytest.approx(0.01))
    assert found[-1][1] == pytest.approx(0.6)


def test_odd_sample_rates_do_not_drift() -> None:
    seconds, rate = 20.0, 11_025
    samples = np.random.default_rng(3).standard_normal(int(seconds * rate)).astype(np.float32) * 1e-4
    samples[int(19.0 * rate) : int(19.5 * rate)] *= 1000
    ((start, stop),) = align_words([[slice(0, 1)]], looking(192, slots=200), 1 / 200, samples, rate)
    assert start == pytest.approx(19.0, abs=0.021)
    assert stop == pytest.approx(19.5, abs=0.021)


def test_the_best_path_is_that_of_all_paths() -> None:
    numbers = np.random.default_rng(7)
    may_skip = np.array([True, False, True, False, False, True])
    for _ in range(20):
        scores = numbers.standard_normal((7, 6))
        path = best_path(scores, may_skip)
        best = max(_paths(scores, may_skip))
        assert scores[np.arange(7), path].sum() == pytest.approx(best)
        assert set(path.tolist()) >= {1, 3, 4}


def _paths(scores: NDArray[np.float64], may_skip: NDArray[np.bool_]) -> list[float]:
    frames, states = scores.shape
    found = []

    def walk(frame: int, state: int, total: float) -> None:
        total += scores[frame, state]
        if frame == frames - 1:
            if state == states - 1 or (state == states - 2 and may_skip[-1]):
                found.append(total)
            return
        for after in (state, state + 1, state + 2):
            if after < states and (after < state + 2 or may_skip[state + 1]):
                walk(frame + 1, after, total)

    walk(0, 0, 0.0)
    walk(0, 1, 0.0)
    return found
