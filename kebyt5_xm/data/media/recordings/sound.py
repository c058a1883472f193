"""What every reader of recordings gives: how many samples there are, known before they are decoded."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Sound:
    """One stretch of sound; a recording is one of them, or several that were joined.

    `blocks` decodes: it yields one channel of float32, [samples] at a time, and raises `Refused` at damage. All
    of them together must be `num_samples` and then `padding` samples, which an encoder added to fill up its last
    frame. `sample_rate` is in Hz.
    """

    num_samples: int
    sample_rate: int
    blocks: Callable[[], Iterator[NDArray[np.float32]]]
    padding: int = 0
