"""The perturbations of evaluations as augmentation: train on the damage that robustness is measured with."""

from typing import Any, Literal

import numpy as np

from kebyt5_xm.data.augmentation.transformation import Transformation
from kebyt5_xm.data.perturbations.every import PERTURBATIONS
from kebyt5_xm.errors import UserError

Name = Literal[
    "typos", "jamo", "missing_spaces", "homoglyphs", "byte_noise", "blur", "jpeg", "noise", "band_limit"
]
"""Names as in reports; see `kebyt5_xm.data.perturbations`."""

_BY_NAME = {perturbation.name: perturbation for perturbation in PERTURBATIONS}

_LIMITS = {
    "text": (0.0, 1.0),
    "jpeg": (1, 100),
    "blur": (0.0, 100.0),
    "noise": (-50.0, 100.0),
    "band_limit": (1.0, 1e6),
}
"""Name, or kind -> least and most strength."""


class Perturb(Transformation):
    """One kind of damage to texts (of a prompt's columns), images or recordings.

    Args:
        name: which damage; reports use the same names.
        strength: how much, in the unit of reports: a share of characters or bytes, an SNR in dB, a JPEG quality.
        probability: share of the texts or media that are changed.
    """

    def __init__(self, name: Name, strength: float, probability: float = 0.5) -> None:
        super().__init__(probability)
        self._perturbation = _BY_NAME[name]
        self.kind = self._perturbation.kind
        least, most = _LIMITS.get(name) or _LIMITS[self._perturbation.kind]
        if not least <= strength <= most:
            raise UserError(
                f"Perturb has the strength {strength} for {name}, expected {least:g} to {most:g} "
                f"({self._perturbation.unit}), such as {self._perturbation.strengths[0]:g}; correct it"
            )
        self.name, self.strength = name, strength

    def apply(self, item: Any, generator: np.random.Generator) -> Any:
        return self._perturbation.apply(item, self.strength, generator)
