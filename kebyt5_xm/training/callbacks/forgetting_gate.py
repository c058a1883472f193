"""The settings of the forgetting meter: `forgetting` in a recipe."""

from dataclasses import dataclass
from typing import Literal

from kebyt5_xm.errors import UserError

TOLERANCE, FACTOR, MAX_FACTOR = 0.1, 2.0, 16.0
"""What a gate takes where the recipe says nothing. Chosen by us, not measured."""


@dataclass
class Forgetting:
    """When text counts as forgotten, and what then happens: `forgetting` in a recipe.

    Args:
        action: `none`, `warn`, `stop` the run with a checkpoint, or `raise_text`: multiply the weight of the
            denoising sources at every validation until all languages are back within the tolerance.
        tolerance: bits per byte that a language's held-out text may lie above the start; 0.1 unless given.
        factor: by which `raise_text` multiplies each time; 2 unless given.
        max_factor: to which it multiplies at most; 16 unless given.
        from_scratch: measure before the first step of a run that starts from random weights too.
    """

    action: Literal["none", "warn", "stop", "raise_text"] = "none"
    tolerance: float | None = None
    factor: float | None = None
    max_factor: float | None = None
    from_scratch: bool = False

    def check(self) -> None:
        """Raise `UserError` for values that mean nothing. Not on being made: a parser does that, unawares."""
        if self.action == "none" and self.tolerance is not None:
            raise UserError(
                f"forgetting.tolerance is {self.tolerance:g}, but forgetting.action is none; expected warn, stop or "
                "raise_text, or no tolerance"
            )
        for name, value in (("factor", self.factor), ("max_factor", self.max_factor)):
            if value is not None and self.action != "raise_text":
                raise UserError(
                    f"forgetting.{name} is {value:g}, but forgetting.action is {self.action}; expected raise_text, "
                    f"or no {name}"
                )
        tolerance, factor, max_factor = self.values()
        if not tolerance >= 0:
            raise UserError(f"forgetting.tolerance is {tolerance:g}; expected 0 bits per byte or more")
        if not 1 < factor <= max_factor:
            raise UserError(
                f"forgetting.factor is {factor:g} and max_factor {max_factor:g}; expected a factor over 1, and no "
                "larger than max_factor"
            )

    def values(self) -> tuple[float, float, float]:
        """Return tolerance, factor and max_factor, as given or as they are unless given."""
        pairs = ((self.tolerance, TOLERANCE), (self.factor, FACTOR), (self.max_factor, MAX_FACTOR))
        tolerance, factor, max_factor = (usual if given is None else given for given, usual in pairs)
        return tolerance, factor, max_factor
