"""Finds answers that have fallen into a loop.

Greedy decoding often writes one phrase without end (Holtzman et al. 2020, arXiv 1904.09751).
"""

MIN_LOOP_BYTES = 96
"""A shorter repetition is no loop: 32 Korean syllables, such as a long laugh. Our own choice."""
MIN_REPEATS = 4
MAX_PERIOD = 256
"""The longest phrase that is looked for, in bytes."""
_TAIL = 12
CHECK_EVERY = 32
"""Ids between two looks for a loop."""


def find_loop(raw: bytes) -> int:
    """Return the length of the phrase that the end of `raw` repeats, in bytes; 0 if it repeats none.

    It is a loop if the last `MIN_LOOP_BYTES` or more are one phrase over and over, `MIN_REPEATS` times or more.
    """
    tail = raw[-_TAIL:]
    found = raw.rfind(tail, 0, len(raw) - 1)
    while found >= 0:  # where the last bytes stood before: few periods are possible
        period = len(raw) - len(tail) - found
        length = max(MIN_LOOP_BYTES, MIN_REPEATS * period)
        if period > MAX_PERIOD or length > len(raw):
            return 0
        start = len(raw) - length
        if raw[start + period :] == raw[start:-period]:
            return period
        found = raw.rfind(tail, 0, found + len(tail) - 1)
    return 0
