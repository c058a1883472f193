"""The contract of a source: where examples come from, and what commands ask about it.

`kebyt5_xm.data.contract.SourceContract` tests it, for sources of other packages too.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.augmentation.augmentation import Changes
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.sources.inspection import Findings, Inspection, findings_of, inspect_prompts
from kebyt5_xm.data.sources.prompts import MediaReference, PromptTable
from kebyt5_xm.data.sources.weights import Weight
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.metrics import Metric
from kebyt5_xm.vocabulary import Sentinels

if TYPE_CHECKING:
    from kebyt5_xm.data.media.interface import MediaInterface


@dataclass(frozen=True)
class Part:
    """Rows that are shuffled separately, such as one store of a denoising source, or one manifest.

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
    """Some examples of a source: parallel arrays of one length.

    Attributes:
        part: number of the part in `parts()`, or in `validation_parts()` if `held_out`.
        row: row of the part.
        index: number of the example in the run; randomness may depend on `(seed, index)` alone.
        seed: of the run.
        held_out: whether rows to validate on are meant, or rows to train on.
    """

    part: NDArray[np.int64]
    row: NDArray[np.int64]
    index: NDArray[np.uint64]
    seed: int
    held_out: bool

    @classmethod
    def rows(cls, part: int, start: int, stop: int, held_out: bool, seed: int = 0) -> "Selection":
        """Return the rows `start` to `stop` (exclusive) of a part, each numbered as its row."""
        row = np.arange(start, stop)
        return cls(np.full_like(row, part), row, row.astype(np.uint64), seed, held_out)

    def __len__(self) -> int:
        return len(self.row)


class Source(ABC):
    """Where examples come from. Every source is random-access: part and row are enough to make an example.

    Sources are sent to the data workers, so they hold paths and settings, not open files.

    Five methods are abstract, the others have defaults. A source whose examples are rows of a table, filled into a
    prompt, returns that table from `prompts`; the other defaults then use it.

    Attributes:
        weight: share of the examples drawn from this source, relative to the other sources' weights; or pairs
            of a step and its weight (`kebyt5_xm.data.sources.weights`).
        is_text: True if the source trains the language by itself (span denoising): the forgetting meter follows its
            held-out loss, and the gate raises its weight.
        metrics: judge the generated answers to held-out examples; without metrics no answers are generated.
        labels: the closed list of answers, or None for free text.
        count_left_out: True to count a held-out example that cannot be made as a wrong answer; False to leave it out.
        max_source_length, max_target_length: the source's own limits in bytes; None if it has none.
    """

    weight: Weight = 1.0
    is_text: bool = False
    metrics: Sequence[Metric] = ()
    labels: Sequence[str] | None = None
    count_left_out: bool = False
    max_source_length: int | None = None
    max_target_length: int | None = None

    # -- what every source must say ----------------------------------------------------------------

    @abstractmethod
    def parts(self) -> list[Part]:
        """Return the training parts. Raises `UserError` if there is nothing to train on."""

    @abstractmethod
    def validation_parts(self) -> list[Part]:
        """Return the held-out parts; an empty list if there are none."""

    @abstractmethod
    def load(self, selection: Selection) -> list[Example]:
        """Return one example for each entry; `Example.empty(cause)` where none can be made.

        An example must not depend on the order of the rows, nor on which other rows are loaded with it.
        """

    @abstractmethod
    def lengths(self, selection: Selection) -> NDArray[np.int64]:
        """Return [n, 2]: encoder positions and target ids of each example that `load` would return.

        Both are zero for an example that is known to be impossible.
        """

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return every setting that changes examples, as plain values. A resumed run compares them."""

    # -- before a run ------------------------------------------------------------------------------

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the source feeds; () for text alone."""
        return ()

    def connect(self, interfaces: "dict[str, MediaInterface]") -> None:
        """Take the model's modalities, before anything is loaded.

        Raises `UserError` if the source feeds a modality that the model does not have.
        """
        for name in self.modalities:
            if name not in interfaces:
                raise UserError(
                    f"found the modality '{name}', expected one of model.modalities: "
                    f"{', '.join(interfaces) or 'there are none'}{did_you_mean(name, interfaces)}"
                )

    def prepare(self, workers: int, progress: Progress) -> None:  # noqa: B027 - most need nothing
        """Build what `lengths` needs to be fast, such as a length table. Called once, after `connect`.

        `progress` takes the number of rows done. In a run on several processes one of them calls this first.
        """

    def impossible(self, longest: int | None = None) -> tuple[int, int]:
        """Return how many training rows are known to give no example, and how many rows there are.

        Examples of more than `longest` positions or target ids count as impossible.
        """
        return 0, sum(part.num_rows for part in self.parts())

    @classmethod
    def denoising(cls, init_args: Mapping[str, Any]) -> SpanDenoising | None:
        """Return how a source with these arguments denoises text; None if it does not. Nothing is opened.

        An export records it, so that its user knows how the weights were trained.
        """
        return None

    # -- what people and commands look at ----------------------------------------------------------

    def prompts(self, held_out: bool, part: int = 0) -> PromptTable | None:
        """Return the table behind a part, whose rows are filled into a prompt; None if there is none.

        Reports show its prompts and media, probes change them, and `kebyt5-xm cache` finds media by it.
        """
        return None

    def changes(self, seed: int, index: int) -> Changes | None:
        """Return how training changes texts and media of example number `index` of a run; None for not at all.

        `prompts(False).example(row, changes)` is then the example that `load` gives.
        """
        return None

    def first(self, num_rows: int, seed: int) -> list[Example]:
        """Return the examples of the first training rows, empty ones with their causes among them.

        Length tables are neither made nor read, and nothing is augmented.
        """
        num_rows = min(num_rows, self.parts()[0].num_rows)
        prompts = self.prompts(held_out=False)
        if prompts is None:
            return self.load(Selection.rows(0, 0, num_rows, held_out=False, seed=seed))
        return [prompts.example_or_skip(row) for row in range(num_rows)]

    def place(self, part: int, row: int, held_out: bool = False) -> tuple[str, int]:
        """Return the file and the line, from 1, of a row; the name of its part if it lies in no file."""
        prompts = self.prompts(held_out, part)
        if prompts is not None:
            return prompts.place(row)
        return self._parts(held_out)[part].name or type(self).__name__, row + 1

    def references(self, part: int, row: int) -> tuple[str, ...]:
        """Return the texts that are right answers to a held-out row. Raises `BadSample` if there are none."""
        prompts = self.prompts(held_out=True, part=part)
        if prompts is None:
            raise NotImplementedError(f"{type(self).__name__} has metrics but no references")
        return prompts.references(row)

    def media(self, modality: str) -> Iterator[MediaReference]:
        """Yield every reference to a medium of `modality`, training rows first, then held-out rows."""
        for prompts in self._tables():
            yield from prompts.media(modality)

    def inspections(self) -> list[Inspection]:
        """Return what `kebyt5-xm lint` reads: every table or store, held-out ones too, each once."""
        tables = {prompts.rows.path: prompts for prompts in self._tables()}
        if tables:
            return [inspect_prompts(prompts) for prompts in tables.values()]
        return [
            Inspection(part.name or type(self).__name__, part.num_rows, partial(self._read, number, held_out))
            for held_out in (False, True)
            for number, part in enumerate(self._parts(held_out))
        ]

    @property
    def sentinels(self) -> Sentinels:
        """The sentinel convention in which ids are to be shown."""
        return "descending"

    def raw_bytes(self, part: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the raw held-out bytes of the rows, [row, bytes], for entropy baselines.

        Empty for a source whose targets are not the bytes of a corpus.
        """
        return np.empty((0, 0), dtype=np.uint8)

    def _parts(self, held_out: bool) -> list[Part]:
        return self.validation_parts() if held_out else self.parts()

    def _tables(self) -> Iterator[PromptTable]:
        for held_out in (False, True):
            for number in range(len(self._parts(held_out))):
                prompts = self.prompts(held_out, number)
                if prompts is not None:
                    yield prompts

    def _read(self, part: int, held_out: bool, start: int, stop: int, progress: Progress) -> Findings:
        return findings_of(self.load(Selection.rows(part, start, stop, held_out)), progress)
