"""The plan is a pure function with exact shares, and every epoch of a part holds each row once."""

import numpy as np
import pytest

from kebyt5_xm.data.order.plan import BLOCK, Plan, fingerprint
from kebyt5_xm.data.sources.source import Part
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
    for part in (0, 1, 2):  # one epoch after the other, so that none comes round before all have been passed
        assert (np.diff(rows.epoch[rows.part == part]) >= 0).all()


def test_a_run_of_an_epoch_passes_over_every_row_once() -> None:
    rows = plan(weights=(1.0,), rows=(47,)).rows(0, 2 * 47)
    assert sorted(rows.row[:47]) == sorted(rows.row[47:]) == list(range(47))
    assert rows.row[:47].tolist() != rows.row[47:].tolist()


def test_a_part_of_10_to_the_11_rows_is_drawn_without_repetition() -> None:
    rows = plan().rows(0, BLOCK)
    drawn = rows.row[rows.part == 2]
    assert len(set(drawn.tolist())) == len(drawn)
    assert drawn.max() > 9 * 10**10


def test_order_is_shuffled_and_depends_on_the_seed() -> None:
    first, other = plan().rows(0, 997), plan(seed=8).rows(0, 997)
    assert (first.part != other.part).any()
    assert (np.diff(first.part) != 0).mean() > 0.3


CUTS = {
    "soon": [(997, (1.0, 9.0, 1.0))],
    "again and again within a block": [(100 * n, (1.0 + n, 9.0, 0.1)) for n in range(1, 5)],
    "within later blocks": [(BLOCK + 7, (1.0, 9.0, 40.0)), (2 * BLOCK - 6007, (3.0, 1.0, 1.0))],
    "on the edge of one": [(BLOCK, (1.0, 9.0, 1.0))],
    "near the end": [(997, (1.0, 9.0, 1.0)), (130_003, (9.0, 1.0, 1.0))],
}


@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_changed_weights_leave_no_row_out_and_give_none_twice(cuts: list) -> None:
    parts = (Part("a", 50_021, 1.0, "f", 2), Part("b", 30_011, 1.0, "f", 1), Part("c", 13, 1.0, "f", 3))
    now = Plan(parts, (3.0, 1.0, 1.0), seed=3)
    draws, start = [], 0
    for index, weights in cuts:
        draws.append(now.rows(start, index))
        now, start = now.continued(index, weights), index
    draws.append(now.rows(start, 10**9))
    part, row, index = (np.concatenate([getattr(d, key) for d in draws]) for key in ("part", "row", "index"))
    assert index.tolist() == list(range(2 * 50_021 + 30_011 + 3 * 13))
    for number, (source, total) in enumerate(zip(parts, now.drawn(len(index)), strict=True)):
        assert source.epochs is not None
        assert (np.bincount(row[part == number]) == source.epochs).all()
        assert total == source.num_rows * source.epochs
    for stop in (start, min(start + 1009, len(index))):
        assert now.drawn(stop).tolist() == np.bincount(part[:stop], minlength=3).tolist()
    middle = now.rows(start + 11, start + 101)
    assert middle.row.tolist() == row[start + 11 : start + 101].tolist()


def test_changed_weights_are_met_from_the_change_on() -> None:
    changed = plan().continued(1009, (5.0, 3.0, 8.0))
    assert changed.shares(1009) == pytest.approx([5 / 16, 3 / 16, 8 / 16], abs=1e-4)
    counts = changed.count(1009, 1009 + BLOCK)
    assert counts / BLOCK == pytest.approx([5 / 16, 3 / 16, 8 / 16], abs=1e-4)
    order = changed.rows(1009, 1009 + 101).part.tolist()
    assert order != plan(weights=(5.0, 3.0, 8.0)).rows(0, 101).part.tolist(), "an order of its own"


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
        ({"weights": (1.0, -0.5, 1.0)}, "'p1' has weight -0.5"),
    ],
)
def test_impossible_plans_are_refused(change: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        plan(**change)
