"""A source's weight over the steps of a run: a number, or (step, weight) pairs with straight lines in between.

A line is followed in stairs of `CHANGE_EVERY` steps: a change makes a new plan of the rest, which takes a tenth of a
second. Steps that a pair names are exact.
"""

from bisect import bisect_right
from collections.abc import Sequence

from kebyt5_xm.errors import UserError

Weight = float | list[tuple[int, float]]
"""Before its first step a list has the first weight, after its last step the last. Of two pairs of one step, the
second counts from that step on."""

CHANGE_EVERY = 50
"""Optimizer steps between two changes of a weight that follows a line. Chosen by us."""


def weight_at(weight: Weight, step: int) -> float:
    """Return the weight of an optimizer step, counted from 0."""
    if isinstance(weight, int | float):
        return float(weight)
    steps = [begin for begin, _ in weight]
    number = bisect_right(steps, step)
    if number in (0, len(weight)):
        return float(weight[max(0, number - 1)][1])
    (begin, first), (end, last) = weight[number - 1 : number + 1]
    stair = max(begin, step // CHANGE_EVERY * CHANGE_EVERY)
    return first + (last - first) * (stair - begin) / (end - begin)


def check_weights(names: Sequence[str], weights: Sequence[Weight], limited: Sequence[bool]) -> None:
    """Raise `UserError` for weights that cannot be drawn by; arguments have an entry for each part of the mixture.

    `limited` says that a part ends after its epochs.
    """
    for name, weight in zip(names, weights, strict=True):
        if isinstance(weight, int | float):
            if not 0 < weight < float("inf"):
                raise UserError(
                    f"'{name}' has weight {weight}; expected a finite number more than 0 (or leave it out)"
                )
            continue
        found = f"'{name}' has the weight {describe(weight)}"
        if not weight:
            raise UserError(f"'{name}' has an empty list of weights; expected pairs such as [0, 1.0]")
        steps = [step for step, _ in weight]
        if steps[0] < 0 or steps != sorted(steps):
            raise UserError(f"{found}; expected steps from 0 on, in rising order")
        if not all(0 <= value < float("inf") for _, value in weight) or not any(value for _, value in weight):
            raise UserError(f"{found}; expected weights of 0 or more, and one above 0")
        if any(limited) and not all(value for _, value in weight):
            raise UserError(
                f"{found}, which is 0 at a step, and a source has `epochs`; set epochs: null for all sources, or a "
                "small weight instead of 0"
            )
    _refuse_silence(names, weights)


def _refuse_silence(names: Sequence[str], weights: Sequence[Weight]) -> None:
    """Raise `UserError` for a step at which all weights are 0."""
    curves = [weight for weight in weights if isinstance(weight, list)]
    if len(curves) < len(weights) or not all(any(not value for _, value in curve) for curve in curves):
        return
    named = {step for curve in curves for step, _ in curve}
    for step in sorted({0, *named, *range(0, max(named), CHANGE_EVERY)}):
        if not any(weight_at(weight, step) for weight in weights):
            raise UserError(
                f"all sources ({', '.join(names)}) have the weight 0 at step {step}; give one a weight"
            )


def describe(weight: list[tuple[int, float]]) -> str:
    """Return the pairs as one line."""
    return ", ".join(f"{value:g} at step {step}" for step, value in weight)
