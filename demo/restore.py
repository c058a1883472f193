"""Fills gaps in held-out text with an exported model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LINE_BYTES = range(36, 71)
GAP_BYTES = 12
"""Four Korean, Chinese or Japanese characters; spans in training average 19 bytes."""
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class Gap:
    """A line with a gap in its middle: `before` and `after` are the input, `was` is the target."""

    language: str
    before: str
    was: str
    after: str


def cut_gaps(language: str, lines: Sequence[str], count: int) -> list[Gap]:
    """Cut a gap of about `GAP_BYTES` out of each of the first `count` lines of `LINE_BYTES` length."""
    fitting = [line for line in lines if len(line.encode()) in LINE_BYTES]
    return [_cut(language, line) for line in fitting[:count]]


def _cut(language: str, line: str) -> Gap:
    raw = line.encode()
    before = raw[: (len(raw) - GAP_BYTES) // 2].decode("utf-8", "ignore")  # whole characters only
    was = raw[len(before.encode()) :][:GAP_BYTES].decode("utf-8", "ignore")
    return Gap(language, before, was, line[len(before) + len(was) :])


def restore(export: Path, gaps: Sequence[Gap]) -> list[str]:
    """Return the text that the exported model writes into each gap, decoded greedily."""
    from kebyt5_xm.model import CrossModalT5
    from kebyt5_xm.model.infilling import Gaps

    model = CrossModalT5.from_pretrained(export)
    rows = [[Gaps([gap.before, gap.after])] for gap in gaps]
    filled = model.fill(rows, temperature=0, max_new_tokens=MAX_NEW_TOKENS)
    return [text.spans[0].text for text in filled]
