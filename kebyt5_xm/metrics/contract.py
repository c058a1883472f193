"""The contract test of metrics, for ours and third-party ones. Needs pytest.

In a test file:

    from kebyt5_xm.metrics.contract import MetricContract

    class TestMine(MetricContract):
        def make(self):
            return MyMetric(...)

        def answers(self):
            return [Answer("...", ("...",)), ...]  # a dozen, some right, some wrong, some nonsense
"""

import pickle
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pytest

from kebyt5_xm.metrics.bootstrap import difference, resample, score
from kebyt5_xm.metrics.metric import Answer, Metric


class MetricContract(ABC):
    """What every metric promises. `make` and `answers` are called several times and must return the same."""

    independent = True
    """Whether the statistics of an answer are independent of the other answers."""
    tolerance = 1e-9
    """Relative and absolute tolerance, since sums are computed in another order."""

    @abstractmethod
    def make(self) -> Metric:
        """Return the metric."""

    @abstractmethod
    def answers(self) -> Sequence[Answer]:
        """Return a dozen answers, some right, some wrong, some nonsense."""

    @pytest.fixture
    def metric(self) -> Metric:
        return self.make()

    @pytest.fixture
    def given(self) -> list[Answer]:
        return list(self.answers())

    def test_the_name_can_stand_in_logs(self, metric: Metric) -> None:
        assert re.fullmatch(r"\w+", metric.name), f"found {metric.name!r}, expected letters, digits and _"
        assert metric.name == metric.name.lower()

    def test_no_answers_have_no_figure(self, metric: Metric) -> None:
        assert np.isnan(metric([]))

    def test_the_figure_is_finite_and_of_the_answers_alone(self, metric: Metric, given: list[Answer]) -> None:
        first = metric(given)
        assert np.isfinite(first)
        again = pickle.loads(pickle.dumps(metric))  # it is sent to the data workers with its source
        assert again(given) == first
        assert metric(given[::-1]) == pytest.approx(first, self.tolerance, self.tolerance)

    def test_a_resample_is_the_answers_repeated(self, metric: Metric, given: list[Answer]) -> None:
        twice = metric.resampled(given, np.full((1, len(given)), 2))
        assert twice == pytest.approx(metric(given), self.tolerance, self.tolerance)
        if not self.independent:
            return
        counts = resample(len(given), 13, seed=5)
        found = metric.resampled(given, counts)
        assert found.shape == (13,)
        for value, often in zip(found, counts, strict=True):
            repeated = [answer for answer, times in zip(given, often, strict=True) for _ in range(times)]
            expected = metric(repeated)
            assert value == pytest.approx(expected, self.tolerance, self.tolerance, nan_ok=True)

    def test_right_answers_are_better(self, metric: Metric, given: list[Answer]) -> None:
        right = [Answer(a.references[0], a.references, _certain(a)) for a in given]
        better, worse = (right, given) if metric.higher_is_better else (given, right)
        assert metric(better) > metric(worse), (
            "references as answers are not better; is higher_is_better right?"
        )

    def test_no_answer_at_all_is_no_better(self, metric: Metric, given: list[Answer]) -> None:
        nothing = [Answer("\ufffd", a.references, a.probabilities) for a in given]
        better, worse = (given, nothing) if metric.higher_is_better else (nothing, given)
        assert metric(better) >= metric(worse)

    def test_the_interval_holds_the_figure(self, metric: Metric, given: list[Answer]) -> None:
        found = score(metric, given)
        assert found.low <= found.value <= found.high
        assert difference(metric, given, given).as_dict() == {"value": 0, "low": 0, "high": 0}


def _certain(answer: Answer) -> dict[str, float]:
    return {label: float(label == answer.references[0]) for label in answer.probabilities}
