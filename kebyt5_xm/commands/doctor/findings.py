"""The finding of a check, and the printed table of findings."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "WARNING", "FAILED", "skipped"]

WIDTH = 110
"""Columns of the printed table."""


@dataclass(frozen=True)
class Finding:
    """One line of the table. `remedy` of a failed check names the key of the recipe to change."""

    check: str
    status: Status
    found: str
    remedy: str = ""


def verdict(check: str, healthy: bool, found: str, remedy: str) -> Finding:
    """Return a finding that is ok or FAILED."""
    return Finding(check, "ok", found) if healthy else Finding(check, "FAILED", found, remedy)


def table(findings: Iterable[Finding]) -> str:
    """Return the findings as a table for a terminal, each remedy on its own line."""
    findings = list(findings)
    first = max(len(finding.check) for finding in findings) + 2
    second = len("skipped") + 2
    lines = []
    for finding in findings:
        lead = f"{finding.check:<{first}}{finding.status:<{second}}"
        room = {"width": max(WIDTH, first + second + 40), "subsequent_indent": " " * (first + second)}
        lines += textwrap.wrap(lead + finding.found, drop_whitespace=True, **room)
        if finding.remedy:
            lines += textwrap.wrap(" " * (first + second) + "-> " + finding.remedy, **room)
    return "\n".join(lines)
