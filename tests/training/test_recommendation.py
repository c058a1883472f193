"""The recommended settings follow the tables, between whose sizes they are interpolated."""

import math

import pytest

from kebyt5_xm.training import recommendation
from kebyt5_xm.training.recommendation import BATCHES, PASSES, RATES, VALIDATIONS, Rate, Situation, recommend


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of the test's own, so that better ones may be put into the tables."""
    monkeypatch.setitem(RATES, "from weights", Rate("a.B", ((1e4, 0.1), (1e6, 0.001)), "here"))
    monkeypatch.setitem(BATCHES, "from weights", ((100, 4), (10_000, 64)))
    monkeypatch.setitem(PASSES, "from weights", ((100, 30), (10_000, 3)))


@pytest.mark.parametrize(
    ("trainable", "rate"), [(10, 0.1), (1e4, 0.1), (1e5, 0.01), (1e6, 0.001), (1e9, 0.001)]
)
def test_rates_between_sizes(trainable: float, rate: float) -> None:
    assert recommend(Situation("from weights", int(trainable), 1000)).rate == pytest.approx(rate)


def test_steps_give_the_passes_over_the_examples() -> None:
    found = recommend(Situation("from weights", 1, 1000))
    assert found.batch == 16  # between 4 and 64
    assert found.steps == pytest.approx(math.sqrt(30 * 3) * 1000 / 16, rel=0.03)
    assert found.passes == pytest.approx(math.sqrt(30 * 3), rel=0.03)
    assert found.steps % VALIDATIONS == 0
    assert found.steps == VALIDATIONS * found.interval
    assert 0 < found.warmup_steps < found.steps


def test_examples_that_are_a_share_of_what_is_drawn_take_more_steps() -> None:
    alone, shared = (recommend(Situation("from weights", 1, 3000, share)) for share in (1.0, 0.25))
    assert shared.steps == pytest.approx(4 * alone.steps, rel=0.06)
    assert shared.passes == pytest.approx(alone.passes, rel=0.06)


def test_a_run_on_few_examples_still_has_steps() -> None:
    for kind in RATES:
        assert recommend(Situation(kind, 1, 0)).steps >= recommendation.MIN_STEPS


def test_every_kind_has_every_table() -> None:
    assert RATES.keys() == BATCHES.keys() == PASSES.keys()
    for table in (*(rate.points for rate in RATES.values()), *BATCHES.values(), *PASSES.values()):
        assert list(table) == sorted(table)
        assert all(size > 0 and value > 0 for size, value in table)
