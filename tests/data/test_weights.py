"""Weights over the steps of a run: their values, and that every part goes on at its own rows."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from kebyt5_xm.data.loading.micro_batches import TrainingOrders
from kebyt5_xm.data.order.cursor import Cursor
from kebyt5_xm.data.order.plan import Draws
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.data.sources.weights import CHANGE_EVERY, Weight, weight_at
from kebyt5_xm.errors import UserError

RISING: Weight = [(0, 1.0), (130, 1.0), (430, 7.0), (430, 3.0)]
ROWS = (1013, 47)


def cursor(weights: list[Weight] | None = None, epochs: int | None = None) -> Cursor:
    parts = [Part(name, rows, 1.0, "f", epochs) for name, rows in zip("ab", ROWS, strict=True)]
    return Cursor(parts, weights or [RISING, 1.0], [False, True], 1.0, seed=7)


def lengths(draws: Draws) -> np.ndarray:
    return np.stack([3 + draws.row % 11, 2 + draws.row % 5], axis=1)


def steps(position: Cursor, budget: bool) -> Steps:
    if budget:
        return BudgetedSteps(position.plan, lengths, Budget(130, 65))
    return CountedSteps(position.plan, lengths, 8, 2)


def orders(position: Cursor, budget: bool, num_steps: int = 500) -> TrainingOrders:
    place = position.next_step, position.next_index
    return TrainingOrders(steps(position, budget), 0, 1, *place, num_steps, position.plan_at)


def train(position: Cursor, budget: bool, num_steps: int, ahead: int = 1) -> list[Draws]:
    """Follow the orders as a run does, whose workers are given micro-batches `ahead` of it."""
    seen: list[Draws] = []
    given = iter(orders(position, budget))

    def prefetched() -> Iterator:
        waiting = list(islice(given, ahead))
        while waiting:
            yield waiting.pop(0)
            waiting += islice(given, 1)

    for order in prefetched():
        seen.append(order.micro_batch.draws)
        if order.progress.ends_step:
            position.advance(order.progress.next_step, order.progress.next_index)
            if position.next_step == num_steps:
                break
    return seen


def places(seen: list[Draws]) -> list[tuple[int, int, int, int]]:
    return [
        tuple(map(int, place))  # pyright: ignore[reportReturnType]
        for draws in seen
        for place in zip(draws.index, draws.part, draws.epoch, draws.row, strict=True)
    ]


def test_a_weight_follows_its_lines_in_stairs() -> None:
    found = {step: weight_at(RISING, step) for step in (0, 129, 149, 150, 199, 200, 429, 430, 10**9)}
    line = {begin: 1 + 6 * (begin - 130) / 300 for begin in (150, 200, 400)}
    expected = {
        0: 1,
        129: 1,
        149: 1,
        150: line[150],
        199: line[150],
        200: line[200],
        429: line[400],
        430: 3,
        10**9: 3,
    }
    assert CHANGE_EVERY == 50
    assert found == pytest.approx(expected)
    assert weight_at([(100, 2.0), (200, 4.0)], 3) == 2
    assert weight_at(5, 7) == 5


@pytest.mark.parametrize("budget", [False, True])
def test_examples_follow_the_weights_and_no_row_is_left_out(budget: bool) -> None:
    position = cursor()
    seen = train(position, budget, 500)
    assert [step for _, step, _ in position.changes] == [150, 200, 250, 300, 350, 400, 430]
    found = sorted(places(seen))
    assert [index for index, *_ in found] == list(range(position.next_index))
    for part, num_rows in enumerate(ROWS):
        drawn = [(epoch, row) for _, p, epoch, row in found if p == part]
        whole = len(drawn) // num_rows
        for epoch in range(whole):
            assert sorted(row for e, row in drawn if e == epoch) == list(range(num_rows))
        assert position.drawn()[part] == len(drawn)
    last = [part for index, part, *_ in found if index >= position.changes[-1][0]]
    assert np.mean([part == 0 for part in last]) == pytest.approx(3 / 4, abs=0.07)
    assert position.text_share() == pytest.approx(1 / 4, abs=1e-4)


@pytest.mark.parametrize("budget", [False, True])
@pytest.mark.parametrize("stop", [149, 150, 151, 333])
def test_resumed_and_prefetched_orders_are_those_of_the_whole_run(budget: bool, stop: int) -> None:
    whole = train(cursor(), budget, 460)
    first, second = cursor(), cursor()
    seen = train(first, budget, stop, ahead=113)
    second.load_state_dict(first.state_dict())
    seen += train(second, budget, 460, ahead=5)
    assert places(seen) == places(whole)
    assert second.drawn().tolist() == [sum(p == part for _, p, *_ in places(whole)) for part in (0, 1)]


def test_the_weight_of_text_may_be_raised_on_top() -> None:
    position = cursor()
    train(position, False, 160)
    position.set_text_factor(4.0)
    assert position.text_share() == pytest.approx(4 / (4 + weight_at(RISING, 160)), abs=1e-4)
    train(position, False, 210)
    position.set_text_factor(1.0)
    again = cursor()
    again.load_state_dict(position.state_dict())
    assert places(train(again, False, 450)) == places(train(position, False, 450))
    assert [factor for _, _, factor in position.changes][:4] == [1.0, 4.0, 4.0, 1.0]


def test_constant_weights_leave_the_plan_alone() -> None:
    plain, listed = cursor([2.0, 1.0]), cursor([[(0, 2.0), (100, 2.0)], 1.0])
    assert places(train(listed, False, 200)) == places(train(plain, False, 200))
    assert listed.changes == []


def test_a_source_may_begin_later_and_end_early() -> None:
    position = cursor([[(0, 0.0), (100, 0.0), (100, 1.0)], [(0, 1.0), (150, 1.0), (150, 0.0)]])
    found = places(train(position, False, 200))
    of_step = [part for _, part, *_ in found]
    size = 16
    assert set(of_step[: 100 * size]) == {1}
    assert set(of_step[100 * size : 150 * size]) == {0, 1}
    assert set(of_step[150 * size :]) == {0}


def test_epochs_count_on_across_changes() -> None:
    position = cursor(epochs=2)
    number = steps(position, True).count(10**6, position.plan_at)
    seen = places(train(position, True, number))
    assert len(seen) <= 2 * sum(ROWS)
    with pytest.raises(UserError, match="the sources end after"):
        train(cursor(epochs=2), True, number + 1)


def test_mean_shares_are_those_of_a_run() -> None:
    drawn = np.bincount([part for _, part, *_ in places(train(cursor(), False, 500))])
    assert cursor().mean_shares(500) == pytest.approx(drawn / drawn.sum(), abs=0.02)
    assert cursor([3.0, 1.0]).mean_shares(7) == pytest.approx([0.75, 0.25])


def test_the_description_names_the_weights() -> None:
    assert cursor().description()["weights.a"] == ("1 at step 0, 1 at step 130, 7 at step 430, 3 at step 430")
    assert "weights.b" not in cursor().description()


@pytest.mark.parametrize(
    ("weights", "epochs", "message"),
    [
        ([0.0, 1.0], None, "'a' has weight 0"),
        ([float("inf"), 1.0], None, "'a' has weight inf"),
        ([[], 1.0], None, "'a' has an empty list"),
        ([[(5, 1.0), (3, 2.0)], 1.0], None, "expected steps from 0 on, in rising order"),
        ([[(-1, 1.0)], 1.0], None, "expected steps from 0 on"),
        ([[(0, -1.0)], 1.0], None, "expected weights of 0 or more, and one above 0"),
        ([[(0, 0.0)], 1.0], None, "expected weights of 0 or more, and one above 0"),
        ([[(0, 0.0), (9, 1.0)], 1.0], 2, "which is 0 at a step, and a source has `epochs`"),
        ([[(0, 1.0), (110, 0.0)], [(105, 0.0), (300, 1.0)]], None, "have the weight 0 at step 110"),
    ],
)
def test_weights_that_nothing_can_be_drawn_by_are_refused(
    weights: list[Weight], epochs: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        cursor(weights, epochs)
