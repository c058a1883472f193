"""Perturbations: damage to texts, images and recordings at several strengths, to measure what it costs a model."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from kebyt5_xm.data.randomness import hash64

Kind = Literal["text", "image", "audio"]


class Perturbation(ABC):
    """One kind of damage. `strengths` go from weak to strong, in `unit`.

    Random draws have the same order at every strength. So, with the same generator, a stronger perturbation damages
    everything that a weaker one does and more, and curves reflect the damage, not the draw.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    unit: ClassVar[str]
    strengths: ClassVar[tuple[float, ...]]

    @abstractmethod
    def apply(self, item: Any, strength: float, generator: np.random.Generator) -> Any:
        """Return a damaged copy of `item`.

        `item` is a `str`, an RGB Pillow image, or (mono float32 [samples], sample rate in Hz). The result has the
        same type, except that a text may become `bytes`, not always valid UTF-8. If nothing changes, an image or
        recording is returned as the same object.
        """


def make_generator(seed: int, row: int, place: int) -> np.random.Generator:
    """Return the generator of the text or medium at `place` of a row, a pure function of the arguments.

    Philox is counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): the key determines
    its initial state.
    """
    return np.random.Generator(np.random.Philox(key=[int(hash64(seed, row)), place]))
