"""Tables for a terminal: what an evaluation found, in aligned columns."""

import math
import unicodedata
from collections.abc import Sequence

from kebyt5_xm.evaluation.evaluation_file import EvaluationFile, SourceEvaluation
from kebyt5_xm.metrics.bootstrap import Score


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of the same number of cells as lines; a Korean or Chinese character is two columns wide."""
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def figure(value: float | None) -> str:
    """Return a value with four decimals; a dash if it is unknown."""
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def describe_scores(found: EvaluationFile) -> str:
    """Return a table of every metric with its interval and its best baseline, and of the bits per byte."""
    heading = ("held out", "metric", "value", f"{100 * found.confidence:g} % interval", "examples", "skipped")
    rows = [
        (
            name,
            metric,
            figure(measured.score.value),
            _interval(measured.score),
            *_counts(source, number),
            _best_baseline(source, metric),
        )
        for name, source in found.sources.items()
        for number, (metric, measured) in enumerate(source.metrics.items())
    ]
    rows += [
        (part, "bits_per_byte", figure(bits), "", "", "", "") for part, bits in found.bits_per_byte.items()
    ]
    table = [(*heading, "best baseline"), *rows]
    has_baselines = any(source.baselines for source in found.sources.values())
    return align(table if has_baselines else [row[:-1] for row in table])


def _best_baseline(source: SourceEvaluation, metric: str) -> str:
    measured = source.metrics[metric]
    best = source.baselines and source.baselines.best(metric, measured.score, measured.higher_is_better)
    if not best:
        return ""
    mark = ", and the model is no better" if best.is_missed else ""
    method = " on ".join((best.baseline.method, *best.baseline.features[:1]))
    return f"{figure(best.score.value)} {method}{mark}"


def _counts(source: SourceEvaluation, number: int) -> tuple[str, str]:
    return ("", "") if number else (str(source.examples), str(source.skipped))


def _interval(score: Score) -> str:
    if math.isnan(score.low) or math.isnan(score.high):
        return ""
    return f"[{figure(score.low)}, {figure(score.high)}]"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
