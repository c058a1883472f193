"""Lengths as text: five numbers and a bar for every power of two."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BAR = "█"
WIDTH = 40
QUANTILES = {"median": 0.5, "95%": 0.95, "99%": 0.99}


def histogram(what: str, lengths: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[str]:
    """Yield the lines about positive `lengths` [n], each of which occurs `counts` [n] times.

    A bucket [2^k, 2^(k + 1)) is a line; the longest bar is `WIDTH` characters.
    """
    order = np.argsort(lengths)
    lengths, counts = lengths[order], counts[order]
    below = np.cumsum(counts)
    total = int(below[-1])
    places = {name: lengths[np.searchsorted(below, share * total)] for name, share in QUANTILES.items()}
    mean = float(lengths @ counts) / total
    numbers = {"least": lengths[0], **places, "most": lengths[-1]}
    told = ", ".join(f"{name} {value:,}" for name, value in numbers.items())
    yield f"  {what}: {told}, mean {mean:,.1f}"
    bucket = np.frexp(lengths)[1] - 1  # exact for integers below 2^53
    sums = np.bincount(bucket - bucket[0], weights=counts).astype(np.int64)
    edges = [f"{1 << k:,} to {(2 << k) - 1:,}" for k in range(int(bucket[0]), int(bucket[-1]) + 1)]
    for edge, count in zip(edges, sums.tolist(), strict=True):
        bar = BAR * max(-(-WIDTH * count // int(sums.max())), int(count > 0))
        yield f"    {edge:>{max(map(len, edges))}}  {count:>9,}  {bar}".rstrip()
