"""The first held-out examples of a source, and a model's answers to them: unchanged, or changed by a probe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.metrics import Answer, Metric

AT_ONCE = 64
"""Prepared examples held in memory. The batch size is the model's choice."""

Tell = Callable[[str], object]
"""Called with a few words on the next piece of work."""


class Response(Protocol):
    """A model's answer to one example."""

    @property
    def text(self) -> str: ...

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Probability of each label; empty for free text."""
        ...


Respond = Callable[[Sequence[Example]], Sequence[Response]]
"""Examples without a target -> the model's answers, in the same order.

Media are prepared, not read from feature caches; collate them with interfaces without caches
(`task.interfaces(read_caches=False)`).
"""


@dataclass(frozen=True)
class HeldOut:
    """The held-out rows that give an example, and the model's answers to them.

    Attributes:
        prompts: the held-out table, read without feature caches. Its limits of length are those of the source.
        metrics: judge the answers.
        respond: asks the model.
        rows: numbers of the rows.
        references: the right answers to each row.
        clean: the model's answers to the unchanged examples.
    """

    prompts: PromptTable
    metrics: Sequence[Metric]
    respond: Respond
    rows: tuple[int, ...]
    references: tuple[tuple[str, ...], ...]
    clean: tuple[Answer, ...]

    @classmethod
    def answered(
        cls,
        prompts: PromptTable,
        metrics: Sequence[Metric],
        respond: Respond,
        num_examples: int,
        num_rows: int,
    ) -> "HeldOut":
        """Answer the first `num_examples` examples that can be made of the first `num_rows` rows."""
        assert metrics
        prompts = prompts.without_caches()
        rows: list[int] = []
        references: list[tuple[str, ...]] = []
        clean: list[Answer] = []
        pending: list[Example] = []
        for number in range(num_rows):
            if len(rows) == num_examples:
                break
            try:
                right = prompts.references(number)
                pending.append(_without_target(prompts.example(number)))
            except BadSample:
                continue
            rows.append(number)
            references.append(right)
            if len(pending) == AT_ONCE:
                clean += _answers(respond, pending, references[-len(pending) :])
                pending = []
        clean += _answers(respond, pending, references[len(clean) :])
        return cls(prompts, metrics, respond, tuple(rows), tuple(references), tuple(clean))

    @cached_property
    def changed(self) -> PromptTable:
        """The same table for changed examples, which may have any length."""
        return self.prompts.of_any_length()

    def answers(self, make: Callable[[int], Example | None]) -> list[Answer]:
        """Return the answers to the examples that `make` returns for each place in `rows`.

        Where `make` returns None, the example is unchanged and its clean answer, the same object, is returned.
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
