"""The rate that losses of a range test and of short runs lead to."""

import math
from collections.abc import Callable

import pytest

from kebyt5_xm.commands.tune.choice import MAX_RUNS, best_rate, climb, first_rate, has_diverged, to_points
from kebyt5_xm.commands.tune.trials import weigh

RATES = [1e-4 * 10 ** (n / 20) for n in range(81)]  # to 1.0, 20 a decade
LOSSES = [3.0 + (math.log10(rate) + 1) ** 2 + 0.3 * (-1) ** n for n, rate in enumerate(RATES)]
"""Lowest at 0.1, and noisy."""


def test_the_first_run_is_a_decade_below_the_lowest_loss() -> None:
    assert first_rate(to_points(RATES, LOSSES)) == pytest.approx(0.01, rel=0.3)


def test_steps_without_a_loss_change_nothing() -> None:
    points = to_points([*RATES, 2.0], [*LOSSES, math.nan])
    assert first_rate(points) == pytest.approx(0.01, rel=0.3)


def test_the_range_test_ends_when_the_loss_rises() -> None:
    losses = [loss + 20 * max(0.0, math.log10(rate) + 1) for rate, loss in zip(RATES, LOSSES, strict=True)]
    ends = next(n for n in range(len(losses)) if has_diverged(losses[: n + 1]))
    assert 0.1 < RATES[ends] < 1.0
    assert has_diverged([*LOSSES[:20], math.inf])
    assert not has_diverged([3.0 + 0.2 * (-1) ** n for n in range(50)])


def bowl(best: float) -> Callable[[float], float]:
    return lambda rate: 2 + abs(math.log2(rate / best))


@pytest.mark.parametrize(
    ("best", "expected", "tried"),
    [
        (0.01, 0.01, {0.005, 0.01, 0.02}),
        (0.04, 0.04, {0.01, 0.02, 0.04, 0.08}),
        (0.0025, 0.0025, {0.02, 0.01, 0.005, 0.0025, 0.00125}),
    ],
)
def test_it_climbs_until_the_loss_rises(best: float, expected: float, tried: set[float]) -> None:
    found = climb(bowl(best), 0.01, 1.0)
    assert best_rate(found) == expected
    assert found.keys() == tried


def test_it_stays_below_the_highest_rate_and_ends_with_the_time() -> None:
    assert climb(bowl(1.0), 0.01, 0.05).keys() == {0.01, 0.02, 0.04}
    assert climb(bowl(1.0), 0.3, 0.05).keys() == {0.05, 0.025}
    left = [2.0, 1.0]
    assert climb(lambda rate: left.pop(0) if left else None, 0.01, 1.0) == {0.01: 2.0, 0.02: 1.0}
    assert climb(lambda rate: None, 0.01, 1.0) == {}


def test_a_run_that_diverges_is_never_chosen() -> None:
    found = climb(lambda rate: math.nan if rate > 0.015 else bowl(0.005)(rate), 0.01, 1.0)
    assert found[0.02] == math.inf
    assert best_rate(found) == 0.005


def test_the_search_ends_where_the_loss_falls_for_ever() -> None:
    assert len(climb(lambda rate: rate, 0.01, 1.0)) == MAX_RUNS


def test_of_equal_losses_the_lower_rate_is_taken() -> None:
    assert best_rate({0.01: 1.001, 0.02: 1.0, 0.005: 1.01}) == 0.01


def test_sources_judge_by_what_was_trained_on_them() -> None:
    """A text that the model knows, and a task that it learns: the size of their held-out sets does not matter."""
    assert weigh({"text": 2.0, "digits": 1.0}, {"text": 100, "digits": 300}) == 1.25
    assert weigh({"digits": 1.0}, {"text": 100, "digits": 300}) == 1.0
    assert weigh({"other": 3.0}, {"text": 100}) == 3.0
