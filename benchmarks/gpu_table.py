"""The table at the end of the GPU benchmark: one line for each measurement of this card."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.report import format_value

COLUMNS = ("measurement", "value", "unit", "ratio to the peer", "of matrix rate", "peak GB", "date")
SHARE, PEAK = "share_of_matrix_rate", "peak_memory_gb"


def print_table(card: str, figures: Mapping[str, Any]) -> None:
    """Print all measurements. The value is the first figure of each, with its name as the unit."""
    rows = [COLUMNS, *_rows(figures, (), "")]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    print(f"\n{card}")
    for row in rows:
        cells = [row[0].ljust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2])]
        cells += [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
        print("  " + "  ".join(cells).rstrip(), flush=True)


def _rows(figures: Mapping[str, Any], keys: tuple[str, ...], date: str) -> Iterator[tuple[str, ...]]:
    date = figures.get("date", date)
    numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    if numbers:
        name, value = next(iter(numbers.items()))
        ratios = [ratio for key, ratio in numbers.items() if key.startswith("ratio_")]
        yield (
            ".".join(keys),
            format_value(value),
            name,
            f"{min(ratios):.2f}" if ratios else "",  # to the best of several peers
            f"{numbers[SHARE]:.0%}" if SHARE in numbers else "",
            f"{numbers[PEAK]:.1f}" if PEAK in numbers else "",
            date,
        )
    for key, inner in figures.items():
        if isinstance(inner, Mapping):
            yield from _rows(inner, (*keys, key), date)
