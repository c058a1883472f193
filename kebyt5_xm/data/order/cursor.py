"""A run's position in its data: steps and examples done, the plan of the rest, and changes of weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.data.sources.weights import Weight, check_weights, describe, weight_at

KEPT_PLANS = 3
"""Plans of steps ahead that are kept: workers are given steps before the run comes to them."""

SHARE_POINTS = 101
"""Steps over which `mean_shares` averages."""


class Cursor:
    """A run's position in its plan. The plan changes when weights change: over the steps, or that of text.

    Args:
        parts: the mixture's training parts.
        weights: for each part the weight of its source, which may change over the steps.
        is_text: for each part whether its source is text (`Source.is_text`).
        temperature: sources are drawn with p ~ weight^(1 / temperature).
        seed: of the plan.

    Attributes:
        plan: the plan of the last finished step; that of the next is `plan_at`.
        next_step: the first unfinished optimizer step.
        next_index: the first example that no finished step has drawn.
        changes: (first example, first step, factor on the weight of text) of every change of weights so far.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Sequence[Weight],
        is_text: Sequence[bool],
        temperature: float,
        seed: int,
    ) -> None:
        self.parts = tuple(parts)
        self.next_step = 0
        self.next_index = 0
        self.changes: list[tuple[int, int, float]] = []
        self._weights = tuple(weights)
        self._is_text = tuple(is_text)
        self._temperature = temperature
        self._seed = seed
        self._kept: dict[tuple[int, int], Plan] = {}
        check_weights([part.name for part in parts], weights, [part.epochs is not None for part in parts])
        self._follow(self.recipe_plan())

    def recipe_plan(self) -> Plan:
        """Return the plan of a run whose weights stay as they are at its first step."""
        return Plan(self.parts, self._shares(1.0, 0), self._seed)

    def description(self) -> dict[str, object]:
        """Return everything that decides the order, as plain values."""
        pairs = zip(self.parts, self._weights, strict=True)
        over_steps = {f"weights.{p.name}": describe(w) for p, w in pairs if isinstance(w, list)}
        return {**self.recipe_plan().description(), **over_steps}

    def _shares(self, text_factor: float, step: int) -> tuple[float, ...]:
        """Return the weight of every part in the plan at a step, with that of text multiplied."""
        return tuple(
            (weight_at(weight, step) * (text_factor if is_text else 1.0)) ** (1 / self._temperature)
            * part.share
            for part, weight, is_text in zip(self.parts, self._weights, self._is_text, strict=True)
        )

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._counted, self._drawn = self.next_index, plan.drawn(self.next_index)

    def plan_at(self, step: int, start: int, plan: Plan) -> Plan:
        """Return the plan of a step whose first example is `start`; `plan` is that of the step before.

        It is `plan` itself unless weights change at this step; every part then goes on at its own next row. It
        follows from the arguments and the factor on text alone.
        """
        shares = self._shares(self.text_factor, step)
        if shares == plan.weights:
            return plan
        if (step, start) not in self._kept:
            while len(self._kept) >= KEPT_PLANS:
                del self._kept[next(iter(self._kept))]
            self._kept[step, start] = plan.continued(start, shares)
        return self._kept[step, start]

    def mean_shares(self, num_steps: int) -> NDArray[np.float64]:
        """Return each part's mean share of the examples of a run of `num_steps`, as its recipe has it."""
        steps = np.unique(np.linspace(0, max(0, num_steps - 1), SHARE_POINTS, dtype=np.int64))
        weights = np.asarray([self._shares(1.0, int(step)) for step in steps])  # [step, part]
        return (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)

    def advance(self, next_step: int, next_index: int) -> None:
        """Record that the present step is finished; arguments as the attributes."""
        plan = self.plan_at(self.next_step, self.next_index, self.plan)
        if plan is not self.plan:
            self.changes.append((self.next_index, self.next_step, self.text_factor))
            self._follow(plan)
        self.next_step, self.next_index = next_step, next_index

    def drawn(self) -> NDArray[np.int64]:
        """Return how many examples of each part the finished steps have drawn."""
        if self.next_index > self._counted:  # only what is new: a whole block takes a tenth of a second
            self._drawn = self._drawn + self.plan.count(self._counted, self.next_index)
            self._counted = self.next_index
        return self._drawn

    def epochs(self) -> dict[str, float]:
        """Return part -> passes over its rows."""
        pairs = zip(self.parts, self.drawn(), strict=True)
        return {part.name: float(drawn) / part.num_rows for part, drawn in pairs}

    # -- the share of text -------------------------------------------------------------------------

    @property
    def is_only_text(self) -> bool:
        """True if every source is text."""
        return all(self._is_text)

    def text_share(self) -> float:
        """Return the share of the examples that are drawn from text sources now."""
        pairs = zip(self._is_text, self.plan.shares(self.next_index), strict=True)
        return float(sum(share for is_text, share in pairs if is_text))

    @property
    def text_factor(self) -> float:
        """The current factor on the weight of text sources."""
        return self.changes[-1][2] if self.changes else 1.0

    def set_text_factor(self, factor: float) -> None:
        """Multiply the recipe's weight of text sources from the next optimizer step on.

        Every part goes on at its own next row.
        """
        self.changes.append((self.next_index, self.next_step, factor))
        self._kept.clear()
        self._follow(self.plan.continued(self.next_index, self._shares(factor, self.next_step)))

    # -- the checkpoint ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "next_step": self.next_step,
            "next_index": self.next_index,
            "changes": [list(change) for change in self.changes],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_step, self.next_index = state_dict["next_step"], state_dict["next_index"]
        older = [(index, 0, factor) for index, factor in state_dict.get("text_changes", [])]
        self.changes = [(index, step, factor) for index, step, factor in state_dict.get("changes", older)]
        self._kept.clear()
        plan = self.recipe_plan()
        for index, step, factor in self.changes:
            plan = plan.continued(index, self._shares(factor, step))
        self._follow(plan)
