"""What simple methods reach on a source's held-out examples, as evaluation.json has it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kebyt5_xm.evaluation.json_numbers import read_known, read_score, to_json_values
from kebyt5_xm.metrics.bootstrap import Score

Method = Literal["constant", "linear", "nearest"]
"""One answer to everything; logistic regression; the answer of the nearest training example."""


@dataclass(frozen=True)
class Baseline:
    """The scores of one method.

    Attributes:
        method: what was done.
        features: what it saw of an example: `characters`, `pixels`, `log-mel`, or the class of an encoder.
        prompts: how many prompts it was fitted to separately; 1 if it was fitted once.
        scores: metric -> score on the held-out examples of the model.
    """

    method: Method
    features: tuple[str, ...]
    prompts: int
    scores: dict[str, Score]

    def as_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "features": list(self.features),
            "prompts": self.prompts,
            "metrics": {name: score.as_dict() for name, score in self.scores.items()},
        }

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "Baseline":
        method = block["method"]
        if method not in get_args(Method):
            raise ValueError(f"the baseline '{method}' is unknown")
        return cls(
            method,
            tuple(map(str, block.get("features") or ())),
            int(block.get("prompts", 1)),
            {name: read_score(score) for name, score in block["metrics"].items()},
        )


@dataclass(frozen=True)
class Best:
    """The best baseline by one metric."""

    baseline: Baseline
    score: Score
    is_missed: bool
    """True if the model is not better."""


@dataclass(frozen=True)
class SimpleBaselines:
    """The baselines of a source. They were fitted on `training_rows` of its `of_rows` training rows."""

    measured: tuple[Baseline, ...]
    training_rows: int
    of_rows: int
    seconds: float | None = None

    def best(self, metric: str, model: Score, higher_is_better: bool) -> Best | None:
        """Return the best baseline by a metric beside the model's score; None if the metric has no value.

        Of equal ones the first is returned, which is the simplest.
        """
        sign = 1 if higher_is_better else -1
        found = [
            (baseline, baseline.scores[metric])
            for baseline in self.measured
            if metric in baseline.scores and not math.isnan(baseline.scores[metric].value)
        ]
        if not found or math.isnan(model.value):
            return None
        baseline, score = max(found, key=lambda pair: sign * pair[1].value)
        return Best(baseline, score, sign * model.value <= sign * score.value)

    def as_dict(self) -> dict[str, Any]:
        return to_json_values(
            {
                "training_rows": self.training_rows,
                "of_rows": self.of_rows,
                "seconds": self.seconds,
                "measured": [baseline.as_dict() for baseline in self.measured],
            }
        )

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> "SimpleBaselines":
        return cls(
            tuple(Baseline.from_dict(baseline) for baseline in block.get("measured") or ()),
            int(block.get("training_rows", 0)),
            int(block.get("of_rows", 0)),
            read_known(block.get("seconds")),
        )
