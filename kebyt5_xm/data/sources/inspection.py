"""What `kebyt5-xm lint` reads of a source: its tables or stores, each in ranges of rows."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.pool import Progress
from kebyt5_xm.data.sources.prompts import PromptTable
from kebyt5_xm.data.text.documents import find_fault
from kebyt5_xm.data.text.store import Store


class Problem(NamedTuple):
    """A row that cannot be used. `line` counts from 1, `path` is the file at fault: the table or a medium."""

    line: int
    path: str
    cause: str


@dataclass
class Findings:
    """The problems in a range of rows, and the lengths of the sound rows: quantity -> lengths."""

    problems: list[Problem] = field(default_factory=list)
    lengths: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspection:
    """One table or store. `read(start, stop, progress)` can be sent to another process.

    `source` is the name of its source in a recipe.
    """

    path: str
    num_rows: int
    read: Callable[[int, int, Progress], Findings]
    source: str = ""


def findings_of(
    examples: Iterable[Example], progress: Progress, unmeasured: Collection[str] = ()
) -> Findings:
    """Return what is wrong with examples, and how long the sound ones are, but for `unmeasured` quantities."""
    findings = Findings()
    for example in examples:
        if example.skipped is not None:
            skip = example.skipped
            findings.problems.append(Problem(skip.line, skip.path, skip.cause))
        else:
            lengths = Counter(
                {"input positions": len(example.input_ids), "target ids": len(example.target_ids)}
            )
            for medium in example.media:
                lengths[f"{medium.modality} slots"] += medium.count
            for quantity in lengths.keys() - set(unmeasured):
                if lengths[quantity]:  # media fill no slots where there is no model
                    findings.lengths.setdefault(quantity, []).append(lengths[quantity])
        progress(1)
    return findings


def inspect_prompts(prompts: PromptTable) -> Inspection:
    """Return the inspection of a table: every row is made an example, its media opened and prepared."""
    return Inspection(prompts.rows.name, len(prompts), partial(_read_prompts, prompts))


def _read_prompts(prompts: PromptTable, start: int, stop: int, progress: Progress) -> Findings:
    quantities = {"input positions": prompts.prompt, "target ids": prompts.target}
    unmeasured = [quantity for quantity, template in quantities.items() if not template.text]
    return findings_of((prompts.example_or_skip(row) for row in range(start, stop)), progress, unmeasured)


def inspect_store(store: Store) -> Inspection:
    """Return the inspection of a text store: every document is read and checked."""
    return Inspection(str(store.path), store.num_documents, partial(_read_documents, store))


def _read_documents(store: Store, start: int, stop: int, progress: Progress) -> Findings:
    findings = Findings(lengths={"document bytes": []})
    for number in range(start, stop):
        document = store.document(number)
        fault = find_fault(document)
        if fault is not None:
            cause = f"{fault.cause}: {fault.detail}"
            findings.problems.append(Problem(number + 1, str(store.path), cause))
        else:
            findings.lengths["document bytes"].append(len(document))
        progress(1)
    return findings
