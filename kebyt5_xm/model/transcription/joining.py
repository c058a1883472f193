"""Joins the words of windows that overlap, so that none is doubled and none is lost."""

from collections.abc import Sequence
from dataclasses import replace

from kebyt5_xm.model.transcription.transcript import TimedWord

SAME_SECONDS = 0.4
"""Two windows heard one word if they wrote the same and begin it within so much. Our own choice: above the error of
times, below the distance of a word that is said twice."""
SAME_SHARE = 0.5
"""They also did if so much of the shorter of two words lies in the other, whatever they wrote. Our own choice."""


def join_words(
    before: Sequence[TimedWord], after: Sequence[TimedWord], start: float, stop: float
) -> list[TimedWord]:
    """Return the words of two neighbouring windows in order.

    Args:
        before: words of the earlier window, which ends at `stop` seconds of the recording.
        after: words of the later window, which begins at `start`.
        start: where the part begins that both windows have; it is empty if it is not before `stop`.
        stop: where it ends.

    The common part is parted at the word that both windows heard nearest to its middle: the earlier window's words
    stand up to there, the later one's after it. Of a word that they wrote differently, the version is taken that lies
    farther from the end of its window. If they heard no word alike, the part is parted in the middle. Words that
    meet there are cut to follow each other.
    """
    if stop <= start:
        return [*before, *after]
    middle, common = (start + stop) / 2, len(before)
    while common and before[common - 1].stop > start:  # a long recording has many words before
        common -= 1
    pairs = [
        (one.text != other.text, abs((one.start + other.start) / 2 - middle), first, second)
        for first, one in enumerate(before[common:], common)
        for second, other in enumerate(after)
        if other.start < stop
        and _are_same(one, other)
        # Of a word that is said several times in a row, each is itself.
        and other is _nearest(after, one)
        and one is _nearest(before[common:], other)
    ]
    if not pairs:
        return _follow(
            [*before[:common], *(word for word in before[common:] if (word.start + word.stop) / 2 < middle)],
            [word for word in after if (word.start + word.stop) / 2 >= middle],
        )
    is_different, _, first, second = min(pairs)
    if is_different and after[second].start - start > stop - before[first].stop:
        return _follow(before[:first], after[second:])
    return _follow(before[: first + 1], after[second + 1 :])


def _follow(before: Sequence[TimedWord], after: Sequence[TimedWord]) -> list[TimedWord]:
    """Return all words; if the last of `before` reaches into the first of `after`, it is cut there.

    The beginning of a word is surer than its end. Only if the later one begins first, it is cut instead.
    """
    if not (before and after and before[-1].stop > after[0].start):
        return [*before, *after]
    last, next_ = before[-1], after[0]
    at = next_.start if next_.start > last.start else last.stop
    return [*before[:-1], replace(last, stop=at), replace(next_, start=at), *after[1:]]


def _nearest(words: Sequence[TimedWord], to: TimedWord) -> TimedWord:
    return min(words, key=lambda word: abs(word.start - to.start))


def _are_same(one: TimedWord, other: TimedWord) -> bool:
    if one.text == other.text and abs(one.start - other.start) <= SAME_SECONDS:
        return True
    common = min(one.stop, other.stop) - max(one.start, other.start)
    return common > SAME_SHARE * min(one.stop - one.start, other.stop - other.start)
