"""Global batches: the same examples on any number of ranks, filled as full as they go, nothing lost between them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from kebyt5_xm.data.order.plan import BLOCK, Draws, Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps, GlobalBatch
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.errors import UserError

TABLE = np.random.default_rng(11).integers(3, 97, (1013, 2))
TABLE[::41] = 0  # rows of which no example can be made
TABLE[7] = (1009, 13)  # longer than any micro-batch here
BUDGET = Budget(global_length=7 * 389, micro_length=389)
PACKED = Budget(global_length=5 * 3 * 307, micro_length=3 * 307, packed_length=307)


def plan(**part: int) -> Plan:
    return Plan((Part("p", len(TABLE), 1.0, "f", **part),), (1.0,), seed=5)


def lengths(draws: Draws) -> NDArray[np.int64]:
    return TABLE[draws.row]


def batches(steps: BudgetedSteps | CountedSteps, count: int) -> list[GlobalBatch]:
    found, start = [], 0
    for _ in range(count):
        found.append(steps.batch(start))
        start = found[-1].stop
    return found


def longest(draws: Draws) -> NDArray[np.int64]:
    return lengths(draws).max(axis=1)


@pytest.mark.parametrize("budget", [BUDGET, PACKED])
def test_every_example_is_in_one_micro_batch_or_left_out_with_reason(budget: Budget) -> None:
    steps = BudgetedSteps(plan(), lengths, budget)
    limit = budget.packed_length or budget.micro_length
    for batch in batches(steps, 23):
        assert len(batch.micro_batches) == budget.global_length // budget.micro_length
        placed = np.concatenate([m.draws.index for m in batch.micro_batches])
        left_out = batch.micro_batches[0].left_out
        assert left_out is not None
        both = np.concatenate([placed, left_out.index])
        assert sorted(both.tolist()) == list(range(batch.start, batch.stop))
        assert all((size == 0) | (size > limit) for size in longest(left_out))
        targets = [lengths(m.draws)[:, 1].sum() for m in batch.micro_batches]
        assert batch.num_targets == sum(targets)


def test_padded_micro_batches_keep_to_the_budget_and_are_nearly_full() -> None:
    used = padded = 0
    for batch in batches(BudgetedSteps(plan(), lengths, BUDGET), 23):
        for micro_batch in batch.micro_batches:
            sizes = longest(micro_batch.draws)
            assert len(sizes) * sizes.max() <= BUDGET.micro_length
            used, padded = used + sizes.sum(), padded + len(sizes) * sizes.max()
    assert used / padded > 0.9
    assert padded / (23 * BUDGET.global_length) > 0.8


def test_packed_rows_keep_to_their_length_and_are_nearly_full() -> None:
    used = 0
    for batch in batches(BudgetedSteps(plan(), lengths, PACKED), 23):
        for micro_batch in batch.micro_batches:
            assert micro_batch.packed_row is not None
            for row in range(3):
                here = lengths(micro_batch.draws[micro_batch.packed_row == row]).sum(axis=0)
                assert (here <= 307).all()
            assert micro_batch.packed_row.max() < 3
            used += longest(micro_batch.draws).sum()
    assert used / (23 * PACKED.global_length) > 0.9


@pytest.mark.parametrize("budget", [BUDGET, PACKED])
def test_the_next_example_would_not_have_fitted(budget: Budget) -> None:
    steps = BudgetedSteps(plan(), lengths, budget)
    for batch in batches(steps, 5):
        window = plan().rows(batch.start, batch.stop + 1)
        sizes = longest(window)
        assert 0 < sizes[-1] <= (budget.packed_length or budget.micro_length)
        usable = sizes[(sizes > 0) & (sizes <= (budget.packed_length or budget.micro_length))]
        assert len(steps._bins(usable)) > steps.num_micro_batches


def test_counted_steps_are_the_plan_cut_in_order() -> None:
    steps = CountedSteps(plan(), lengths, micro_batch_size=5, num_micro_batches=3)
    for number, batch in enumerate(batches(steps, 4)):
        assert (batch.start, batch.stop) == (15 * number, 15 * (number + 1))
        index = [m.draws.index.tolist() for m in batch.micro_batches]
        assert index == [[15 * number + 5 * m + n for n in range(5)] for m in range(3)]
        assert batch.num_targets == lengths(plan().rows(batch.start, batch.stop))[:, 1].sum()


@pytest.mark.parametrize("kind", ["counted", "budgeted"])
def test_sources_that_end_give_each_row_in_every_epoch_and_then_an_error(kind: str) -> None:
    finite = plan(epochs=2)
    steps = (
        CountedSteps(finite, lengths, 2, 1013)
        if kind == "counted"
        else BudgetedSteps(finite, lengths, Budget(1009, 1009))
    )
    rows, start = [], 0
    while start < 2 * len(TABLE):
        batch = steps.batch(start)
        rows += finite.rows(batch.start, batch.stop).row.tolist()
        start = batch.stop
    assert sorted(rows) == sorted([*range(len(TABLE))] * 2)
    with pytest.raises(UserError, match="sources end after 2026 examples"):
        steps.batch(start)


def test_finished_parts_leave_their_place_to_the_others() -> None:
    sizes, weights, epochs = (50_021, 101, 20_011), (2.0, 1.0, 1.0), (None, 3, 2)
    parts = tuple(Part(f"p{n}", s, 1.0, "f", e) for n, (s, e) in enumerate(zip(sizes, epochs, strict=True)))
    draws = Plan(parts, weights, seed=3).rows(0, 3 * BLOCK)
    counts = np.bincount(draws.part)
    assert counts[1:].tolist() == [303, 40_022]
    for part in (1, 2):
        rows = draws.row[draws.part == part]
        assert (np.bincount(rows) == epochs[part]).all()
    assert (draws.part[2 * BLOCK :] == 0).all()  # both have ended within the first two blocks
    share = (draws.part[:BLOCK] == 0).mean()
    assert 0.6 < share < 0.7  # 2 of 3 once the smallest has ended, in the first block


def test_ended_plans_agree_with_themselves_from_any_place() -> None:
    parts = (Part("a", 40_009, 1.0, "f", 2), Part("b", 30_011, 1.0, "f", 1))
    whole = Plan(parts, (3.0, 1.0), seed=3)
    everything = whole.rows(0, 10**9)
    assert len(everything) == whole.num_examples == 2 * 40_009 + 30_011
    for start in (0, 997, BLOCK - 3, len(everything) - 5):
        part = whole.rows(start, start + 11)
        np.testing.assert_array_equal(part.row, everything.row[start : start + 11])
    for number, part in enumerate(parts):
        assert part.epochs is not None
        assert (np.bincount(everything.row[everything.part == number]) == part.epochs).all()


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ((1000, 300, None), "global_length is 1000, expected a multiple of micro_length 300"),
        ((1200, 300, 7), "micro_length is 300, expected a multiple of packed_length 7"),
        ((0, 300, None), "global_length is 0"),
    ],
)
def test_budgets_that_do_not_divide_are_refused(budget: tuple, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Budget(*budget).check()


@pytest.mark.parametrize("share", [0.01, 0.97])
def test_examples_that_are_too_long_take_no_room(share: float) -> None:
    table = TABLE.copy()
    table[np.random.default_rng(3).random(len(table)) < share] = (20_011, 7)
    budget = Budget(global_length=31 * 389, micro_length=389)
    steps = BudgetedSteps(plan(), lambda draws: table[draws.row], budget)
    for batch in batches(steps, 11):
        used = sum(table[m.draws.row].max(axis=1).sum() for m in batch.micro_batches)
        assert used > 0.75 * budget.global_length


def test_only_impossible_examples_are_an_error() -> None:
    steps = BudgetedSteps(plan(), lambda draws: np.zeros((len(draws), 2), dtype=np.int64), Budget(7, 7))
    with pytest.raises(UserError, match="no example to train on"):
        steps.batch(0)


@pytest.mark.parametrize("budget", [BUDGET, PACKED])
@pytest.mark.parametrize("epochs", [1, 3])
def test_steps_that_are_there_beyond_doubt_are_not_counted_one_by_one(
    budget: Budget, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = BudgetedSteps(plan(epochs=epochs), lengths, budget)
    every = steps.count(10**6)
    assert every == BudgetedSteps(plan(epochs=epochs), lengths, budget).count(every + 1), (
        "never more than there are"
    )
    asked: list[int] = []
    counted = BudgetedSteps.batch
    monkeypatch.setattr(
        BudgetedSteps, "batch", lambda self, start: asked.append(start) or counted(self, start)
    )
    assert steps.count(every // 2) == every // 2
    assert asked == []
    assert steps.count(every) == every
    assert asked
