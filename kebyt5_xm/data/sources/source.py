"""What a source of examples must offer, and what one example is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.metrics import Metric
from kebyt5_xm.vocabulary import Sentinels

if TYPE_CHECKING:
    from kebyt5_xm.data.media.interface import MediaInterface


@dataclass(frozen=True)
class Part:
    """A run of rows that is shuffled by itself: one store of a denoising source, or one manifest.

    `share` is the part's share of its own source's examples; the shares of a source sum to one. After `epochs`
    the part gives no more, and the others fill its place; None repeats it for ever.
    """

    name: str
    num_rows: int
    share: float
    fingerprint: str
    epochs: int | None = None


@dataclass(frozen=True)
class Selection:
    """Which examples of a source are meant: parallel arrays of one length.

    Attributes:
        part: number of the part in `parts()`, or in `validation_parts()` if `held_out`.
        row: row of the part.
        index: number of the example in the run; randomness may depend on `(seed, index)` alone.
        seed: of the run.
        held_out: rows to validate on.
    """

    part: NDArray[np.int64]
    row: NDArray[np.int64]
    index: NDArray[np.uint64]
    seed: int
    held_out: bool

    def __len__(self) -> int:
        return len(self.row)


class Source(ABC):
    """Where examples come from. Every source is random-access: a row number is enough to make an example.

    `weight` is the source's share of the examples drawn, relative to the other sources' weights. Sources are
    sent to the data workers, so they hold paths and settings, not open files.
    """

    weight: float
    metrics: Sequence[Metric] = ()
    """By which written answers to the held-out examples are judged; without any, none are written."""
    labels: Sequence[str] | None = None
    """The only answers that there are, or None where they are free."""

    count_left_out: bool = False
    """Whether a held-out example that cannot be made is a wrong answer to the metrics, or is left out of them."""

    @property
    def modalities(self) -> tuple[str, ...] | None:
        """The modalities that the source's prompts feed, () for none; None if it does not tell."""
        return None

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

    def prepare(self, workers: int, progress: Progress) -> None:  # noqa: B027 - stores are prepared already
        """Make what has to be made once before `lengths` answers at once; call it after `connect`.

        `progress` is told of the rows that are done. In a run on several processes one of them calls this first.
        """

    @abstractmethod
    def load(self, selection: Selection) -> list[Example]:
        """Return one example for each entry, an empty one with its cause where none can be made.

        What an example holds never depends on the order or the company of the rows.
        """

    @abstractmethod
    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        """Return [n, 2]: encoder positions and target ids of each of the examples that `load` would return.

        Both are zero for an example that is known to be impossible.
        """

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what decides an example besides its row, as plain values: it enters the data fingerprint."""

    @property
    def sentinels(self) -> Sentinels:
        """The sentinel convention in which ids are to be shown."""
        return "descending"

    def impossible(self, longest: int | None = None) -> tuple[int, int]:
        """Return how many of the training rows are known to give no example, and how many rows there are.

        With `longest`, one of more positions or target ids is none.
        """
        return 0, 1

    def place(self, row: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of a training row that can be skipped."""
        raise NotImplementedError(f"{type(self).__name__} has no rows that can be skipped")

    def references(self, row: int) -> tuple[str, ...]:
        """Return the texts that would be right for held-out row `row`; raises `BadSample` if there are none."""
        raise NotImplementedError(f"{type(self).__name__} has no answers to be judged")

    def raw_bytes(self, part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the raw held-out bytes of the rows, [row, bytes], for entropy baselines.

        A source whose targets are not the bytes of a corpus has none: an empty array.
        """
        return np.empty((0, 0), dtype=np.uint8)
