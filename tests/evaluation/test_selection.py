"""The threshold of confidence from held-out answers, and its expected precision."""

import math

import numpy as np
import pytest

from kebyt5_xm.evaluation.selection import Judged, at_threshold, best_reachable, select, wilson


def answers(*pairs: tuple[float, int]) -> list[Judged]:
    return [Judged(confidence, bool(right)) for confidence, right in pairs]


def test_the_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    judged = answers((0.9, 1), (0.2, 0), (0.8, 0), (0.7, 1), (0.6, 1), (0.5, 0), (0.4, 1))
    found = select(judged, 0.75)
    assert found is not None
    assert (found.threshold, found.kept.right, found.kept.total) == (0.6, 3, 4)
    assert found.share_kept == pytest.approx(4 / 7)
    # 2 of 3 are right at 0.7, but 3 of 4 at 0.6: the precision need not grow with the threshold
    assert at_threshold(judged, 0.7).kept.value < found.kept.value


def test_answers_of_equal_confidence_are_kept_or_dropped_together() -> None:
    found = select(answers((0.9, 1), (0.5, 1), (0.5, 0), (0.5, 0)), 0.6)
    assert found is not None
    assert (found.threshold, found.kept.total) == (0.9, 1)


def test_a_precision_that_cannot_be_reached_has_no_threshold() -> None:
    judged = answers((0.9, 0), (0.8, 1), (0.7, 1), (0.6, 0))
    assert select(judged, 0.9) is None
    best = best_reachable(judged)
    assert (best.threshold, best.kept.right, best.kept.total) == (0.7, 2, 3)
    assert select([], 0.5) is None


def test_nineteen_of_twenty_are_95_percent() -> None:
    found = select([Judged(0.5, number > 0) for number in range(20)], 0.95)
    assert found is not None
    assert found.kept.total == 20


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0.0, 1.0)],
)
def test_the_interval_is_wilsons(right: int, total: int, low: float, high: float) -> None:
    # 81 of 263 is the example of Newcombe (1998), Statistics in Medicine 17, 857-872, table I
    assert wilson(right, total) == pytest.approx((low, high), abs=6e-5)


def test_the_expected_precision_is_not_that_of_the_rows_that_chose_the_threshold() -> None:
    """Confidence that says nothing: the best threshold is luck, and the expectation must not believe it."""
    draw = np.random.default_rng(3)
    kept: list[float] = []
    expected: list[float] = []
    for _ in range(211):
        judged = [
            Judged(float(c), bool(r)) for c, r in zip(draw.random(97), draw.random(97) < 0.7, strict=True)
        ]
        found = select(judged, 0.76)
        if found is not None and not math.isnan(found.expected.value):
            kept.append(found.kept.value)
            expected.append(found.expected.value)
    assert np.mean(kept) > 0.76
    assert np.mean(expected) < 0.72
