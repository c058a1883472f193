"""Windows of long recordings: cut in silences, else with an overlap; nothing said is left out."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from kebyt5_xm.model.transcription.windows import Window, cut_windows

RATE = 8000
Sound = NDArray[np.float32]


def speech(seconds: float, seed: int = 1, level: float = 0.1) -> Sound:
    return (np.random.default_rng(seed).standard_normal(int(seconds * RATE)) * level).astype(np.float32)


def silence(seconds: float) -> Sound:
    return np.zeros(int(seconds * RATE), dtype=np.float32)


def windows(*parts: Sound, longest: float = 3.0, overlap: float = 0.6, block: int = 1713) -> list[Window]:
    whole = np.concatenate(parts)

    def blocks() -> Iterator[Sound]:
        for start in range(0, len(whole), block):
            yield whole[start : start + block]

    found = list(cut_windows(blocks(), RATE, longest, overlap))
    for window in found:
        assert len(window.samples) <= longest * RATE
        np.testing.assert_array_equal(
            window.samples, whole[window.start : window.start + len(window.samples)]
        )
    return found


def seconds(found: list[Window]) -> list[tuple[float, float]]:
    return [(window.start_seconds, window.stop_seconds) for window in found]


def test_a_window_is_cut_in_the_longest_silence_of_its_second_half() -> None:
    parts = [speech(1.6), silence(0.2), speech(0.4, 2), silence(0.4), speech(2.0, 3)]
    first, second = seconds(windows(*parts))
    assert first == (0.0, pytest.approx(2.4))  # 0.2 s of the silence stay on either side
    assert second == (pytest.approx(2.4), pytest.approx(4.6))


def test_speech_without_silence_is_cut_with_an_overlap() -> None:
    found = windows(speech(7.0))
    assert 3 <= len(found) <= 5
    for before, after in itertools.pairwise(found):
        assert before.stop_seconds - after.start_seconds == pytest.approx(0.6, abs=1e-3)
    assert found[0].start == 0
    assert found[-1].stop_seconds == 7.0


def test_it_is_cut_where_it_is_quietest() -> None:
    loud = [speech(2.0), speech(0.08, 2, level=0.02), speech(3.0, 3)]
    first, second = windows(*loud)[:2]
    middle = (first.stop_seconds + second.start_seconds) / 2
    assert middle == pytest.approx(2.04, abs=0.06)


def test_silence_is_left_out() -> None:
    found = windows(silence(4.0), speech(0.5), silence(9.0), speech(0.5, 2), silence(5.0))
    assert [(round(start, 1), round(stop, 1)) for start, stop in seconds(found)] == [(3.8, 4.7), (13.3, 14.2)]
    assert windows(silence(10.0)) == []
    assert windows(silence(0.0)) == []


def test_every_sample_of_speech_is_in_a_window() -> None:
    numbers = np.random.default_rng(5)
    parts = []
    for number in range(40):
        parts += [speech(numbers.uniform(0.1, 4.0), number), silence(numbers.uniform(0.0, 0.5))]
    whole = np.concatenate(parts)
    seen = np.zeros(len(whole), dtype=bool)
    for window in windows(*parts):
        seen[window.start : window.start + len(window.samples)] = True
    assert not np.any(whole[~seen])


@pytest.mark.parametrize("block", [1, 77, 100_000])
def test_blocks_of_any_size_give_the_same_windows(block: int) -> None:
    parts = [speech(1.0), silence(0.3), speech(1.2, 2)]
    assert seconds(windows(*parts, longest=2.0, overlap=0.4, block=block)) == seconds(
        windows(*parts, longest=2.0, overlap=0.4)
    )


def test_noise_is_no_speech_between_words() -> None:
    noise = speech(5.0, 9, level=0.003)
    noisy = noise + np.concatenate([speech(2.0), silence(0.5), speech(2.5, 2)])
    first, second = windows(noisy)
    assert first.stop_seconds == pytest.approx(2.25, abs=0.2)
    assert second.start_seconds == pytest.approx(2.25, abs=0.2)


def test_a_constant_is_no_sound() -> None:
    """Cheap sound cards add one; silence is silence all the same."""
    offset = np.float32(0.3)
    parts = [speech(1.6), silence(0.4), speech(2.0, 3), silence(4.0)]
    assert seconds(windows(*(part + offset for part in parts))) == seconds(windows(*parts))
    assert windows(silence(4.0) + offset) == []


def test_the_work_does_not_grow_with_the_square_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are joined a few times each, however small the blocks are."""
    joined, concatenate = 0, np.concatenate

    def counting(arrays: list[Sound], *args: object) -> Sound:
        nonlocal joined
        joined += sum(len(array) for array in arrays)
        return concatenate(arrays, *args)

    whole = speech(12.0)
    monkeypatch.setattr(np, "concatenate", counting)
    blocks = [whole[start : start + 100] for start in range(0, len(whole), 100)]
    assert len(list(cut_windows(blocks, RATE, 5.0, 1.0))) > 2
    assert joined < 4 * len(whole)
