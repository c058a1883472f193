"""The share of padding in the first steps, counted by hand, and budgets that leave little."""

import numpy as np
import pytest

from kebyt5_xm.data.order.filling import ROW_MULTIPLE, fitting_budget, measure_filling
from kebyt5_xm.data.order.plan import Draws, Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps
from kebyt5_xm.data.sources.source import Part

ROWS = 12
PLAN = Plan((Part("a", ROWS, 1.0, "f", epochs=1),), (1.0,), 3)


def lengths(draws: Draws) -> np.ndarray:
    """Every third row is long: 50 positions and 7 target ids, the others 10 and 11."""
    return np.where((draws.row % 3 == 0)[:, None], (50, 7), (10, 11)).astype(np.int64)


def test_batches_by_number_are_padded_to_their_longest() -> None:
    steps = CountedSteps(PLAN, lengths, micro_batch_size=ROWS, num_micro_batches=1)
    found = measure_filling(steps, lengths)
    assert (found.steps, found.examples, found.left_out) == (1, ROWS, 0)
    assert (found.inputs, found.input_positions) == (4 * 50 + 8 * 10, 12 * 50)
    assert (found.targets, found.target_positions) == (4 * 7 + 8 * 11, 12 * 11)
    assert found.micro_positions == 600
    assert found.input_padding == pytest.approx(1 - 280 / 600)
    assert found.target_padding == pytest.approx(1 - 116 / 132)
    assert found.padding == pytest.approx(1 - (280 + 116) / (600 + 132))


def test_rows_that_cannot_be_made_are_left_out() -> None:
    def some(draws: Draws) -> np.ndarray:
        return lengths(draws) * (draws.row != 1)[:, None]

    found = measure_filling(CountedSteps(PLAN, some, ROWS, 1), some)
    assert (found.examples, found.left_out) == (ROWS - 1, 1)


def test_packed_rows_hold_several_examples() -> None:
    """Targets of eight short examples outgrow those of the long ones: rows of 61 take one of each."""
    budget = Budget(5 * 61, 5 * 61, 61)
    found = measure_filling(BudgetedSteps(PLAN, lengths, budget), lengths)
    assert found.examples == ROWS
    assert found.inputs == 280
    assert found.input_positions == 5 * 60  # four rows of 50 + 10, one of four short ones


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_a_packed_budget_leaves_little_padding(num_ranks: int) -> None:
    plan = Plan((Part("a", 997, 1.0, "f"),), (1.0,), 3)
    by_number = measure_filling(CountedSteps(plan, lengths, 32, 1), lengths)
    budget = fitting_budget(plan, lengths, 32, by_number.micro_positions, num_ranks)
    budget.check()
    assert budget.packed_length == 56
    assert budget.packed_length % ROW_MULTIPLE == 0
    steps = BudgetedSteps(plan, lengths, budget)
    assert steps.num_micro_batches % num_ranks == 0
    found = measure_filling(steps, lengths)
    assert found.input_padding < 0.2 < by_number.input_padding
    assert found.examples / found.steps == pytest.approx(32, rel=0.25)
    assert found.left_out == 0


def test_a_budget_without_packing_has_room_for_the_longest() -> None:
    plan = Plan((Part("a", 997, 1.0, "f"),), (1.0,), 3)
    budget = fitting_budget(plan, lengths, 32, micro_positions=7, pack=False)
    budget.check()
    assert budget.packed_length is None
    assert budget.longest >= 50
