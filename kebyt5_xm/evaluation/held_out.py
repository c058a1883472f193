"""The first held-out examples of a source, and a model that answers them: as they are, and in any other guise."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.sources.example_maker import ExampleMaker
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.evaluation import PROBED_EXAMPLES
from kebyt5_xm.metrics import Answer

AT_ONCE = 64
"""Examples that are held prepared; the model batches them as it likes."""

Tell = Callable[[str], object]
"""Called with what is done next, in a few words."""


class Response(Protocol):
    """What a model says to one example."""

    @property
    def text(self) -> str: ...

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Of each label, where the source has labels."""
        ...


Respond = Callable[[Sequence[Example]], Sequence[Response]]
"""Examples without a target -> what the model says to each, in their order.

Their media are prepared, never taken from a feature cache, so they have to be collated with interfaces that have
none: `task.interfaces(read_caches=False)`.
"""


@dataclass(frozen=True)
class HeldOut:
    """Rows of a source's held-out table of which examples can be made, and the answers to these.

    Attributes:
        source: has metrics and held-out rows.
        rows: numbers in `source.held_out`.
        references: of each row.
        clean: the answers to the examples as they are.
    """

    source: Manifest
    respond: Respond
    rows: tuple[int, ...]
    references: tuple[tuple[str, ...], ...]
    clean: tuple[Answer, ...]

    @classmethod
    def answered(cls, source: Manifest, respond: Respond, num_examples: int = PROBED_EXAMPLES) -> "HeldOut":
        """Answer the first `num_examples` held-out examples that can be made, in the order of the table."""
        assert source.metrics
        maker = _without_caches(source.maker)
        rows: list[int] = []
        references: list[tuple[str, ...]] = []
        clean: list[Answer] = []
        pending: list[Example] = []
        (part,) = source.validation_parts()
        for number in range(part.num_rows):
            if len(rows) == num_examples:
                break
            try:
                right = source.references(number)
                pending.append(_without_target(maker.example(_table(source), number)))
            except BadSample:
                continue
            rows.append(number)
            references.append(right)
            if len(pending) == AT_ONCE:
                clean += _answers(respond, pending, references[-len(pending) :])
                pending = []
        clean += _answers(respond, pending, references[len(clean) :])
        return cls(source, respond, tuple(rows), tuple(references), tuple(clean))

    @property
    def table(self) -> Rows:
        """The held-out rows of the source."""
        return _table(self.source)

    @cached_property
    def maker(self) -> ExampleMaker:
        """Makes examples of other guises: without feature caches, and of any length.

        The limits of length are for rows as they are; a perturbed text may be three times as long.
        """
        return replace(_without_caches(self.source.maker), max_source_length=sys.maxsize)

    def answers(self, make: Callable[[int], Example | None]) -> list[Answer]:
        """Return the answers to what `make` gives for each place in `rows`.

        Where it gives None, the example is as it was: its clean answer is taken, the very same object.
        """
        found = list(self.clean)
        pending: dict[int, Example] = {}
        for place in range(len(self.rows)):
            example = make(place)
            if example is not None:
                pending[place] = example
            if len(pending) == AT_ONCE or place == len(self.rows) - 1:
                right = [self.references[n] for n in pending]
                for n, answer in zip(
                    pending, _answers(self.respond, list(pending.values()), right), strict=True
                ):
                    found[n] = answer
                pending = {}
        return found


def _table(source: Manifest) -> Rows:
    assert source.held_out is not None
    return source.held_out


def _without_caches(maker: ExampleMaker) -> ExampleMaker:
    return replace(maker, interfaces={name: replace(i, cache=None) for name, i in maker.interfaces.items()})


def _without_target(example: Example) -> Example:
    return replace(example, target_ids=example.target_ids[-1:])


def _answers(
    respond: Respond, examples: list[Example], references: Sequence[tuple[str, ...]]
) -> list[Answer]:
    if not examples:
        return []
    return [
        Answer(response.text, right, response.probabilities)
        for response, right in zip(respond(examples), references, strict=True)
    ]
