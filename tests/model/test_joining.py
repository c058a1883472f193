"""Words of overlapping windows: none doubled, none lost."""

from itertools import pairwise

import hypothesis
import pytest
from hypothesis import strategies as st

from kebyt5_xm.model.transcription.joining import join_words
from kebyt5_xm.model.transcription.transcript import TimedWord


def words(text: str, start: float = 0.0, length: float = 0.5) -> list[TimedWord]:
    """Return words that follow each other without a pause; '.' is a pause of the same length."""
    return [
        TimedWord(word, start + number * length, start + (number + 1) * length, 0.9)
        for number, word in enumerate(text.split())
        if word != "."
    ]


def joined(before: list[TimedWord], after: list[TimedWord], start: float, stop: float) -> str:
    return " ".join(word.text for word in join_words(before, after, start, stop))


def test_without_a_common_part_all_words_stay() -> None:
    assert joined(words("a b"), words("b c", 1.0), 1.0, 1.0) == "a b b c"
    assert joined(words("a b"), words("c d", 2.0), 1.8, 1.2) == "a b c d"
    assert joined([], words("c"), 0.0, 0.0) == "c"


def test_common_words_stand_once() -> None:
    assert joined(words("a b c d"), words("c d e f", 1.02), 1.0, 2.0) == "a b c d e f"


def test_a_word_said_twice_stands_twice() -> None:
    assert joined(words("a b c c"), words("c c d", 1.0), 1.0, 2.0) == "a b c c d"


def test_words_that_an_edge_cuts_are_the_other_windows() -> None:
    """The earlier window ends inside 'delta', the later one begins inside 'beta'."""
    before = [*words("alpha beta gamma"), TimedWord("del", 1.5, 1.7, 0.3)]
    after = [TimedWord("ta", 0.8, 1.0, 0.3), *words("gamma delta echo", 1.0)]
    assert joined(before, after, 0.8, 1.7) == "alpha beta gamma delta echo"


def test_of_a_word_heard_differently_the_version_far_from_the_edge_stays() -> None:
    before = [*words("a b"), TimedWord("sea", 1.0, 1.45, 0.4)]
    after = [TimedWord("seat", 1.0, 1.5, 0.9), *words("d", 1.5)]
    assert joined(before, after, 0.6, 1.45) == "a b seat d"
    before = [*words("a b"), TimedWord("seat", 1.0, 1.5, 0.9)]
    after = [TimedWord("eat", 1.05, 1.5, 0.4), *words("d", 1.5)]
    assert joined(before, after, 1.05, 1.9) == "a b seat d"


def assert_in_order(found: list[TimedWord]) -> None:
    assert all(word.start < word.stop for word in found)
    assert all(one.stop <= other.start for one, other in pairwise(found))


GAPS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([0.02, 0.2, 0.9])),
    max_size=6,
)


@hypothesis.given(GAPS, GAPS, st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.6, 1.0, 2.0]))
def test_words_follow_each_other_whatever_was_heard(
    first: list[tuple[str, float, float]], second: list[tuple[str, float, float]], start: float, stop: float
) -> None:
    """Windows may disagree in everything; the words of each are in order and inside of it."""
    heard = []
    for parts, at, end in ((first, 0.0, stop), (second, start, 10.0)):
        heard.append([])
        for text, gap, length in parts:
            if (begins := at + gap) < end:
                at = min(begins + length, end)
                heard[-1].append(TimedWord(text, begins, at, 0.9))
    assert_in_order(join_words(*heard, start, stop))


@hypothesis.given(
    st.lists(st.sampled_from("abc"), min_size=3, max_size=14),
    st.floats(0.2, 3.0),
    st.floats(0.6, 2.4),
    st.data(),
)
def test_two_windows_give_what_was_said(
    text: list[str], start: float, width: float, data: st.DataObject
) -> None:
    """Whole words are heard rightly and their times are off by up to 80 ms; cut ones are heard as nonsense."""
    length = 0.45
    start = min(start, length * len(text) / 2)
    stop = min(start + width, length * len(text))
    hypothesis.assume(stop - start > 2 * length + 0.2)  # at least one whole word in both
    shift = st.floats(-0.08, 0.08)
    before, after = [], []
    for number, letter in enumerate(text):
        begins, ends = number * length, (number + 1) * length
        for heard, first, last in ((before, 0.0, stop), (after, start, 1e9)):
            if ends <= first + 0.01 or begins >= last - 0.01:
                continue
            off = data.draw(shift)
            whole = begins >= first and ends <= last
            heard.append(TimedWord(letter if whole else "?", begins + off, ends + off, 0.9))
    found = join_words(before, after, start, stop)
    assert [word.text for word in found] == text
    assert all(one.start < other.start for one, other in pairwise(found))


@pytest.mark.parametrize("stop", [0.0, 1.0])
def test_nothing_heard(stop: float) -> None:
    assert join_words([], [], 0.0, stop) == []
