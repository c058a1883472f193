"""How often the sources were gone through, and what could not be used."""

from dataclasses import dataclass

from kebyt5_xm.evaluation.report.numbers import NONE, percent
from kebyt5_xm.evaluation.report.recorded import Record, Skipped

MAX_CAUSES = 10


@dataclass(frozen=True)
class Skips:
    """Examples of a source that could not be used, and (cause, times) of the most frequent causes."""

    source: str
    count: int
    share: str
    causes: list[tuple[str, int]]
    more_causes: int


def epochs(record: Record, source: str) -> str:
    """Return how often a source's rows were gone through, the least and the most of its parts."""

    def is_part(name: str) -> bool:
        return name == source or name.startswith(f"{source}/")

    found = [points[-1][1] for part, points in record.below("epochs/").items() if is_part(part)]
    told = record.results.get("epochs")
    if not found and isinstance(told, dict):
        found = [float(v) for part, v in told.items() if isinstance(v, int | float) and is_part(part)]
    if not found:
        return NONE
    low, high = f"{min(found):.2f}", f"{max(found):.2f}"
    return low if low == high else f"{low} – {high}"


def skips(record: Record) -> list[Skips]:
    """Return the skips of every source, counted by results.json and, where it lacks them, by skipped.jsonl."""
    counted = record.results.get("skipped") or {}
    found = []
    for name in dict.fromkeys([*record.skipped, *counted]):
        skipped, entry = record.skipped.get(name, Skipped()), counted.get(name) or {}
        count, drawn = entry.get("skipped", skipped.total), entry.get("drawn")
        causes = skipped.causes.most_common(MAX_CAUSES)
        share = percent(count / drawn) if drawn else NONE
        found.append(Skips(name, count, share, causes, len(skipped.causes) - len(causes)))
    return found
