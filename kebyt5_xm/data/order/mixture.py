"""The sources of a run as one: turns draws of the plan into examples, lengths, or causes of skipping."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import Skip
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.order.plan import Draws
from kebyt5_xm.data.sources.source import Part, Selection, Source


@dataclass
class Mixture:
    """All parts of all sources in one list, the training ones or the held-out ones.

    Attributes:
        sources: name -> source.
        parts: named SOURCE, or SOURCE/PART where a source has several.
        source_of_part: for each part the number of its source in `sources`.
        part_in_source: for each part its number among the parts of its own source.
        seed: decides spans; that of held-out rows is the same in every run.
    """

    sources: dict[str, Source]
    parts: list[Part]
    source_of_part: list[int]
    part_in_source: list[int]
    seed: int
    held_out: bool = False
    interfaces: dict[str, MediaInterface] = field(default_factory=dict)

    @classmethod
    def training(
        cls, sources: dict[str, Source], seed: int, interfaces: dict[str, MediaInterface]
    ) -> "Mixture":
        """Return the rows to train on; the sources are connected."""
        return cls._of(sources, {name: source.parts() for name, source in sources.items()}, seed, interfaces)

    @classmethod
    def validation(cls, sources: dict[str, Source], interfaces: dict[str, MediaInterface]) -> "Mixture":
        """Return the rows to validate on."""
        parts = {name: source.validation_parts() for name, source in sources.items()}
        return replace(cls._of(sources, parts, 0, interfaces), held_out=True)

    @classmethod
    def _of(
        cls,
        sources: dict[str, Source],
        parts: dict[str, list[Part]],
        seed: int,
        interfaces: dict[str, MediaInterface],
    ) -> "Mixture":
        places = [(s, p, name) for s, name in enumerate(sources) for p in range(len(parts[name]))]
        named = []
        for _, p, name in places:
            part = parts[name][p]
            named.append(replace(part, name=f"{name}/{part.name}" if part.name else name))
        return cls(
            sources, named, [s for s, _, _ in places], [p for _, p, _ in places], seed, interfaces=interfaces
        )

    @property
    def names(self) -> list[str]:
        """The names of the parts."""
        return [part.name for part in self.parts]

    def source(self, part: int) -> Source:
        """Return the source that part number `part` is of."""
        return list(self.sources.values())[self.source_of_part[part]]

    def load(self, draws: Draws) -> list[Example]:
        """Return the examples of `draws`, in their order."""
        examples: list[Example | None] = [None] * len(draws)
        for source, where, selection in self._by_source(draws):
            for place, example in zip(where, source.load(selection), strict=True):
                examples[place] = example
        return [example for example in examples if example is not None]

    def lengths(self, draws: Draws) -> NDArray[np.int64]:
        """Return [n, 2]: encoder positions and target ids of each of `draws`; zeros for an impossible one."""
        lengths = np.zeros((len(draws), 2), dtype=np.int64)
        for source, where, selection in self._by_source(draws):
            lengths[where] = source.lengths(selection)
        return lengths

    def skips(self, draws: Draws) -> list[tuple[int, Skip]]:
        """Return (part, cause) of draws that were skipped: no example, or one too long for a micro-batch."""
        skips = []
        for part, row, example in zip(draws.part, draws.row, self.load(draws), strict=True):
            length = max(len(example.input_ids), len(example.target_ids))
            cause = f"{length} positions or target ids, more than a micro-batch or a packed row has room for"
            path, line = self.place(int(part), int(row))
            skips.append((int(part), example.skipped or Skip(line, path, cause)))
        return skips

    def place(self, part: int, row: int) -> tuple[str, int]:
        """Return the file and the line, from 1, of a row of part number `part`."""
        return self.source(part).place(self.part_in_source[part], row, self.held_out)

    def _by_source(self, draws: Draws) -> Iterator[tuple[Source, np.ndarray, Selection]]:
        """Yield each source, the places of its draws among `draws`, and those draws."""
        sources = list(self.sources.values())
        of_source = np.asarray(self.source_of_part)[draws.part]
        part = np.asarray(self.part_in_source)[draws.part]
        for number in np.unique(of_source):
            where = np.flatnonzero(of_source == number)
            selection = Selection(part[where], draws.row[where], draws.index[where], self.seed, self.held_out)
            yield sources[number], where, selection
