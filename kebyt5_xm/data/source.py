"""What a source of examples must offer, and what one example is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from kebyt5_xm.modality import MediaInterface


@dataclass(frozen=True)
class Example:
    """One example, ready to be collated.

    `input_ids` and `target_ids` are byte ids (int16, end-of-sequence included, never padded); PAD stands at
    every slot of `media`. `counted` is False for an example that could not be made: it keeps its place in the
    batch, without targets.
    """

    input_ids: NDArray[np.int16]
    target_ids: NDArray[np.int16]
    media: "tuple[MediaItem, ...]" = ()
    counted: bool = True


@dataclass(frozen=True)
class MediaItem:
    """One prepared medium and its run of slots: `count` encoder positions from `start` on."""

    modality: str
    prepared: "Tensor"
    start: int
    count: int


@dataclass(frozen=True)
class Part:
    """A run of rows that is shuffled by itself: one store of a denoising source, or one manifest.

    `share` is the part's share of its own source's examples; the shares of a source sum to one.
    """

    name: str
    num_rows: int
    share: float
    fingerprint: str


class Source(ABC):
    """Where examples come from. Every source is random-access: a row number is enough to make an example.

    `weight` is the source's share of the examples drawn, relative to the other sources' weights. Sources are
    sent to the data workers, so they hold paths and settings, not open files.
    """

    weight: float

    def connect(self, interfaces: "dict[str, MediaInterface]") -> None:  # noqa: B027 - text needs none
        """Take what is known of the model's modalities, before anything is loaded.

        Raises `UserError` if the source names a modality that the model does not have.
        """

    @abstractmethod
    def parts(self) -> list[Part]:
        """Return the training parts; raise `UserError` if there is nothing to train on."""

    @abstractmethod
    def validation_parts(self) -> list[Part]:
        """Return the held-out parts (an empty list if there are none)."""

    @abstractmethod
    def load(
        self,
        part: NDArray[np.int64],
        row: NDArray[np.int64],
        index: NDArray[np.uint64],
        seed: int,
        held_out: bool,
    ) -> list[Example]:
        """Return one example for each entry of `part`, `row` and `index` (all of one length).

        Randomness may depend on `(seed, index)` alone, never on the order or the company of the rows.
        """

    @abstractmethod
    def target_lengths(
        self,
        part: NDArray[np.int64],
        row: NDArray[np.int64],
        index: NDArray[np.uint64],
        seed: int,
        held_out: bool,
    ) -> NDArray[np.int64]:
        """Return the number of target ids of each of the examples that `load` would return."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what decides an example besides its row, as plain values: it enters the data fingerprint."""

    def raw_bytes(self, part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the raw held-out bytes of the rows, [row, bytes], for entropy baselines.

        A source whose targets are not the bytes of a corpus has none: an empty array.
        """
        return np.empty((0, 0), dtype=np.uint8)
