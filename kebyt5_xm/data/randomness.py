"""Counter-based randomness: every number is a pure function of a seed and of counters.

There is no state to save or share: the number for (seed, example, draw) is the same on every machine, in every order
and in every worker. Only integer arithmetic modulo 2^64 is used, so platforms cannot round differently.
"""

from math import isqrt
from typing import overload

import numpy as np
from numpy.typing import NDArray

# SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014); the
# increment is 2^64 / golden ratio, the finaliser is variant 13 of Stafford's MurmurHash3 mixers.
_INCREMENT = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = (1 << 64) - 1
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

# Rounds of the Feistel network. Four look random at large sizes (Luby and Rackoff, 1988). Twelve is the smallest
# number for which all permutations of 5 and 6 elements were equally frequent over 8,000 keys (chi-squared).
_ROUNDS = 12


def hash64(seed: int, *counters: int | NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return 64 random bits for a seed and any number of counters, which broadcast against each other.

    `hash64(seed)` is the first output of SplitMix64 seeded with `seed`; each further counter `c` takes output
    number `c` of a SplitMix64 seeded with the hash so far, so their order matters. Integers of any sign are
    taken modulo 2^64. The result has the broadcast shape of the counters, `()` for plain integers.
    """
    state = _mix(np.asarray((seed + _INCREMENT) & _WORD, dtype=np.uint64))
    for counter in counters:
        steps = np.asarray(counter & _WORD if isinstance(counter, int) else counter)
        if steps.dtype.kind not in "iu":
            raise TypeError(f"found a counter of type {steps.dtype}, expected integers")
        stride = np.multiply(steps.astype(np.uint64), np.uint64(_INCREMENT))
        state = _mix(np.asarray(np.add(state, np.add(stride, np.uint64(_INCREMENT), dtype=np.uint64))))
    return state


def map_to_range(bits: NDArray[np.uint64], bound: int | NDArray[np.integer]) -> NDArray[np.int64]:
    """Map 64 random bits to an integer uniform in [0, bound), `bound` broadcasting, from 1 to 2^63.

    The result is the high word of the 128-bit product of bits and bound (Lemire, "Fast random integer generation
    in an interval", 2019). Without its rejection step, each probability is off by less than 2^-64.
    """
    limit = np.asarray(bound).astype(np.uint64)
    bits_high, bits_low = bits >> _HALF, bits & _LOW
    limit_high, limit_low = limit >> _HALF, limit & _LOW
    middle = bits_high * limit_low + ((bits_low * limit_low) >> _HALF)
    if not limit_high.any():
        return np.asarray(middle >> _HALF).astype(np.int64)
    carry = bits_low * limit_high + (middle & _LOW)
    return np.asarray(bits_high * limit_high + (middle >> _HALF) + (carry >> _HALF)).astype(np.int64)


@overload
def permute(index: int, size: int, key: int) -> int: ...
@overload
def permute(index: NDArray[np.integer], size: int, key: int) -> NDArray[np.int64]: ...
def permute(index: int | NDArray[np.integer], size: int, key: int) -> int | NDArray[np.int64]:
    """Return the position of `index` in the permutation of [0, size) chosen by `key`; needs no memory.

    A Feistel network over a grid of about sqrt(size) x sqrt(size) cells, with cycle walking for the few cells
    beyond `size` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). `size` up to 10^18.

    Raises IndexError for an index outside [0, size).
    """
    values = np.array(index, dtype=np.int64)
    if values.size and (values.min() < 0 or values.max() >= size):
        raise IndexError(f"found index {values.min()} to {values.max()}, expected 0 to {size - 1}")
    flat = values.reshape(-1)
    outside = np.arange(flat.size)
    while outside.size:
        flat[outside] = _feistel(flat[outside], size, key)
        outside = outside[flat[outside] >= size]
    return int(flat[0]) if isinstance(index, int) else flat.reshape(values.shape)


def _feistel(values: NDArray[np.int64], size: int, key: int) -> NDArray[np.int64]:
    rows = isqrt(size - 1) + 1  # ceil(sqrt(size)), so that the grid exceeds size by less than one row
    columns = -(-size // rows)
    row, column = np.divmod(values, columns)
    for step in range(0, _ROUNDS, 2):
        row = (row + map_to_range(hash64(key, column + (step << 56)), rows)) % rows
        column = (column + map_to_range(hash64(key, row + (step + 1 << 56)), columns)) % columns
    return row * columns + column


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble in place. `out=` avoids NumPy scalars, whose overflow would warn."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        np.bitwise_xor(state, state >> np.uint64(shift), out=state)
        np.multiply(state, np.uint64(factor), out=state)
    return np.bitwise_xor(state, state >> np.uint64(31), out=state)
