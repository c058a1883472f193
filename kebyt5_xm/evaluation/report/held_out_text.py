"""Whether runs were measured on the same held-out text: else their bits per byte say nothing of each other."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from kebyt5_xm.evaluation.report.markup import EMPTY, data, join, say
from kebyt5_xm.evaluation.report.recorded import Record
from kebyt5_xm.evaluation.report.tables import note

ALL = ""
"""Stands for all held-out parts together."""

_ENTROPIES = ("unigram", "bigram")


def differing(records: Sequence[Record]) -> set[str]:
    """Return the held-out parts whose text is not the same in all runs that have them.

    The entropies that results.json has of the held-out bytes tell. `ALL` is among them if one is, or if the runs have
    other parts.
    """
    measured = [_parts(record) for record in records]
    measured = [parts for parts in measured if parts]
    names = dict.fromkeys(name for parts in measured for name in parts)
    found = {name for name in names if len({p[name] for p in measured if name in p}) > 1}
    if found or len({frozenset(parts) for parts in measured}) > 1:
        found.add(ALL)
    return found


def metrics_of(parts: set[str]) -> set[str]:
    """Return the logged metrics of these parts that depend on their text."""
    kinds = ("val/bits_per_byte", "val/loss")
    return {f"{kind}/{part}" if part else kind for kind in kinds for part in parts}


def warning(parts: set[str]) -> Markup:
    """Return the note that says which parts are left out of the comparison."""
    named = sorted(parts - {ALL})
    if not parts:
        return EMPTY
    if not named:
        return note(
            say(
                "실행마다 평가용 부분이 달라 전체의 비트와 손실은 나란히 놓지 않았습니다.",
                "The runs hold out different parts, so bits and loss over all of them are not put side by side.",
            )
        )
    return note(
        say(
            "평가용 글이 실행마다 다른 부분({})의 비트와 손실은 나란히 놓지 않았습니다.",
            "The held-out text of {} is not the same in these runs, so its bits and losses are not put side by side.",
            join([data(name) for name in named], ", "),
        )
    )


def _parts(record: Record) -> dict[str, tuple[Any, ...]]:
    """Return part -> the entropies of its bytes, where they were measured."""
    parts = record.results.get("parts") or {}
    return {
        name: tuple(round(figures[key], 6) for key in _ENTROPIES)
        for name, figures in parts.items()
        if isinstance(figures, dict) and all(isinstance(figures.get(key), int | float) for key in _ENTROPIES)
    }
