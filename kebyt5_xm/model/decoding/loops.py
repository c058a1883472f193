"""Finds answers that have fallen into a loop.

Greedy decoding often writes one phrase without end (Holtzman et al. 2020, arXiv 1904.09751).
"""

MIN_LOOP_BYTES = 96
"""A shorter repetition is no loop: 32 Korean syllables, such as a long laugh. Our own choice."""
MIN_REPEATS = 4
MAX_PERIOD = 256
"""The longest phrase that is looked for, in bytes."""
CHECK_EVERY = 32
"""Ids between two looks for a loop."""


def find_loop(raw: bytes) -> int:
    """Return the length of the phrase that the end of `raw` repeats, in bytes; 0 if it repeats none.

    It is a loop if the last `MIN_LOOP_BYTES` or more are one phrase over and over, `MIN_REPEATS` times or more.
    """
    for period in range(1, min(MAX_PERIOD, len(raw) // MIN_REPEATS) + 1):
        length = max(MIN_LOOP_BYTES, MIN_REPEATS * period)
        if length > len(raw):
            return 0
        start = len(raw) - length
        if raw[-1] == raw[-1 - period] and raw[start + period :] == raw[start:-period]:
            return period
    return 0
