"""A run's position in its data: steps and examples done, the plan of the rest, and the share of text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.sources.source import Part


class Cursor:
    """A run's position in its plan. The plan changes when the weight of text changes.

    Args:
        parts: the mixture's training parts.
        weights: for each part the weight of its source.
        is_text: for each part whether its source is text (`Source.is_text`).
        temperature: sources are drawn with p ~ weight^(1 / temperature).
        seed: of the plan.

    Attributes:
        plan: the plan from example `next_index` on.
        next_step: the first unfinished optimizer step.
        next_index: the first example that no finished step has drawn.
        text_changes: (first example, factor on the weight of text) of every change so far.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        weights: Sequence[float],
        is_text: Sequence[bool],
        temperature: float,
        seed: int,
    ) -> None:
        self.parts = tuple(parts)
        self.next_step = 0
        self.next_index = 0
        self.text_changes: list[tuple[int, float]] = []
        self._weights = tuple(weights)
        self._is_text = tuple(is_text)
        self._temperature = temperature
        self._seed = seed
        self._follow(self.recipe_plan())

    def recipe_plan(self) -> Plan:
        """Return the plan of a run whose share of text never changes."""
        return Plan(self.parts, self._shares(1.0), self._seed)

    def _shares(self, text_factor: float) -> tuple[float, ...]:
        """Return the weight of every part in the plan, with that of text multiplied."""
        return tuple(
            (weight * (text_factor if is_text else 1.0)) ** (1 / self._temperature) * part.share
            for part, weight, is_text in zip(self.parts, self._weights, self._is_text, strict=True)
        )

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._counted, self._drawn = self.next_index, plan.drawn(self.next_index)

    def advance(self, next_step: int, next_index: int) -> None:
        """Record that a step is finished; arguments as the attributes."""
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

    def text_share(self) -> float:
        """Return the share of the examples that are drawn from text sources now."""
        pairs = zip(self._is_text, self.plan.shares(self.next_index), strict=True)
        return float(sum(share for is_text, share in pairs if is_text))

    @property
    def text_factor(self) -> float:
        """The current factor on the weight of text sources."""
        return self.text_changes[-1][1] if self.text_changes else 1.0

    def set_text_factor(self, factor: float) -> None:
        """Multiply the recipe's weight of text sources from the next optimizer step on.

        Every part goes on at its own next row.
        """
        self.text_changes.append((self.next_index, factor))
        self._follow(self.plan.continued(self.next_index, self._shares(factor)))

    # -- the checkpoint ----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "next_step": self.next_step,
            "next_index": self.next_index,
            "text_changes": [list(change) for change in self.text_changes],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.next_step, self.next_index = state_dict["next_step"], state_dict["next_index"]
        self.text_changes = [(index, factor) for index, factor in state_dict.get("text_changes", [])]
        plan = self.recipe_plan()
        for index, factor in self.text_changes:
            plan = plan.continued(index, self._shares(factor))
        self._follow(plan)
