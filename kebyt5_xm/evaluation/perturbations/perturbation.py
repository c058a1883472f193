"""What a perturbation is: a kind of damage to a text, an image or a recording, in several strengths."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np

from kebyt5_xm.data.randomness import hash64

Kind = Literal["text", "image", "audio"]


class Perturbation(ABC):
    """One kind of damage. `strengths` go from weak to strong, in `unit`.

    Whatever is drawn is drawn in one order whatever the strength, so that with the same generator a stronger one
    damages what a weaker one does and more: curves then rise and fall by the damage and not by the draw.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    unit: ClassVar[str]
    strengths: ClassVar[tuple[float, ...]]

    @abstractmethod
    def apply(self, item: Any, strength: float, generator: np.random.Generator) -> Any:
        """Return `item` damaged; it is not written to.

        `item` is a `str`, an RGB image of Pillow, or (mono float32 [samples], sample rate in Hz). The result is of
        its type, but of a text it may be `bytes`, not always UTF-8. An image or recording to which nothing is to be
        done is given back itself.
        """


def generator(seed: int, row: int, place: int) -> np.random.Generator:
    """Return the generator of the text or medium at `place` of a row: a pure function of the three.

    Philox is counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): its key is all of
    its state at the start.
    """
    return np.random.Generator(np.random.Philox(key=[int(hash64(seed, row)), place]))
