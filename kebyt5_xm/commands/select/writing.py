"""The manifests that `kebyt5-xm select` writes: the confident rows, and the least confident ones."""

import heapq
from dataclasses import dataclass
from pathlib import Path

from kebyt5_xm.commands.select.answers import Answers
from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.durable import durable_file, sync


@dataclass(frozen=True)
class Written:
    """Numbers of rows: all, kept, those whose answer is never kept, and those written as hard ones."""

    total: int
    kept: int
    unusable: int
    hard: int

    def describe(self, threshold: float, out: Path) -> str:
        """Return the lines that say what was written."""
        lines = [
            f"threshold {threshold:.4f}: {self.kept} of {self.total} answers ({100 * self.kept / self.total:.1f} %) "
            f"in {out}; never kept, as cut, repeating or none of the labels: {self.unusable}"
        ]
        if self.hard:
            lines.append(f"{self.hard} rows of the least confidence in {hard_path(out)}")
        return "\n".join(lines)


def hard_path(out: Path) -> Path:
    """Return the path of the least confident rows: `more.hard.jsonl` beside `more.jsonl`."""
    return out.with_name(f"{out.stem}.hard{out.suffix}")


def write_selected(answers: Answers, threshold: float, out: Path, num_hard: int) -> Written:
    """Write the usable rows of confidence `threshold` or more to `out`, and `num_hard` of the others beside it."""
    kept = unusable = 0
    others: list[
        tuple[float, int]
    ] = []  # a heap of the least confident: (minus the confidence, minus the row)
    with durable_file(out) as file:
        for number, line in enumerate(answers):
            unusable += not line.is_usable
            if line.is_usable and line.confidence >= threshold:
                file.write(to_json_line(dict(line.row)))
                kept += 1
            elif num_hard:
                heapq.heappush(others, (-line.confidence, -number))
                if len(others) > num_hard:
                    heapq.heappop(others)
    if num_hard:
        with durable_file(hard_path(out)) as file:
            for _, number in sorted(others, reverse=True):
                file.write(to_json_line(dict(answers.rows.row(-number))))
    sync(out.absolute().parent)
    return Written(len(answers), kept, unusable, len(others))
