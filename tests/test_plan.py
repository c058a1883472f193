"""The plan is a pure function with exact shares, and every epoch of a part holds each row once."""

import numpy as np
import pytest

from kebyt5_xm.data.plan import BLOCK, Plan, fingerprint
from kebyt5_xm.data.source import Part
from kebyt5_xm.errors import UserError


def plan(weights=(5.0, 3.0, 1.0), rows=(1013, 499, 10**11), seed=7) -> Plan:
    parts = tuple(Part(f"p{n}", size, 1.0, "f") for n, size in enumerate(rows))
    return Plan(parts, weights, seed)


def test_any_window_equals_the_same_window_of_a_longer_one() -> None:
    whole = plan().rows(0, BLOCK + 997)
    for start, stop in [(0, 1), (13, 101), (BLOCK - 5, BLOCK + 7)]:
        window = plan().rows(start, stop)
        for name in ("part", "epoch", "row", "index"):
            np.testing.assert_array_equal(getattr(window, name), getattr(whole, name)[start:stop])


def test_every_block_holds_the_exact_shares() -> None:
    rows = plan().rows(0, 2 * BLOCK)
    exact = np.asarray([5, 3, 1]) / 9 * BLOCK
    for block in (0, 1):
        counts = np.bincount(rows.part[block * BLOCK : (block + 1) * BLOCK], minlength=3)
        assert np.abs(counts - exact).max() < 1


def test_a_tiny_weight_still_occurs_in_every_block() -> None:
    rows = plan(weights=(1.0, 1e-9, 1.0)).rows(0, BLOCK)
    assert np.bincount(rows.part)[1] == 1


def test_every_epoch_of_a_part_holds_each_row_once_in_another_order() -> None:
    rows = plan().rows(0, BLOCK)
    orders = []
    for epoch in (0, 1, 2):
        order = rows.row[(rows.part == 1) & (rows.epoch == epoch)]
        assert sorted(order) == list(range(499))
        orders.append(tuple(order))
    assert len(set(orders)) == 3


def test_a_part_of_10_to_the_11_rows_is_drawn_without_repetition() -> None:
    rows = plan().rows(0, BLOCK)
    drawn = rows.row[rows.part == 2]
    assert len(set(drawn.tolist())) == len(drawn)
    assert drawn.max() > 9 * 10**10


def test_order_is_shuffled_and_depends_on_the_seed() -> None:
    first, other = plan().rows(0, 997), plan(seed=8).rows(0, 997)
    assert (first.part != other.part).any()
    assert (np.diff(first.part) != 0).mean() > 0.3


def test_fingerprint_sees_every_ingredient() -> None:
    variants = [
        plan(),
        plan(seed=8),
        plan(weights=(5.0, 3.0, 2.0)),
        plan(rows=(1013, 503, 10**11)),
    ]
    assert len({fingerprint(p.description()) for p in variants}) == len(variants)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": (1013, 0, 7)}, "'p1' has no training rows"),
        ({"weights": (1.0, 0.0, 1.0)}, "'p1' has weight 0"),
    ],
)
def test_impossible_plans_are_refused(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(**change)
