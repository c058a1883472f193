"""Entropies in bits per byte: what models with little or no context reach on held-out bytes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kebyt5_xm.errors import UserError

BLOCK_BYTES = 1 << 20  # bytes counted at a time; the index arrays of a block take about 16 MB


@dataclass(frozen=True)
class Entropies:
    """Bits per byte. A trained model should be below each of them.

    uniform: every byte value equally likely, log2(256) = 8.
    unigram: the entropy H(b_t) of the byte values.
    bigram: the conditional entropy H(b_t | b_t-1).
    """

    uniform: float
    unigram: float
    bigram: float


def measure_entropies(held_out: NDArray[np.uint8]) -> Entropies:
    """Return the entropies of exactly these bytes: a sequence [bytes] or independent chunks [chunk, bytes].

    They are what the best unigram and bigram models *fitted on these same bytes* reach, a little lower than models
    fitted on other text. With few bytes the bigram entropy is much lower, since the bigram model has 65,536 counts to
    memorise them. Pairs never cross two chunks.
    Reads block by block: a memory-mapped array is never copied whole.
    Raises `UserError` for sequences of fewer than two bytes.
    """
    assert held_out.dtype == np.uint8
    assert held_out.ndim in (1, 2)
    chunks = held_out[None] if held_out.ndim == 1 else held_out
    num_chunks, length = chunks.shape
    if num_chunks == 0 or length < 2:
        raise UserError(
            f"found held-out bytes of shape {held_out.shape}, expected at least two bytes; hold out more text"
        )
    unigrams = np.zeros(256, np.int64)
    bigrams = np.zeros(256 * 256, np.int64)
    rows = max(1, BLOCK_BYTES // length)
    for row in range(0, num_chunks, rows):
        for start in range(0, length, BLOCK_BYTES):
            block = chunks[
                row : row + rows, start : start + BLOCK_BYTES + 1
            ]  # one more byte, for the last pair
            unigrams += np.bincount(block[:, :BLOCK_BYTES].ravel(), minlength=256)
            pairs = block[:, :-1].astype(np.intp) * 256 + block[:, 1:]
            bigrams += np.bincount(pairs.ravel(), minlength=256 * 256)
    before = bigrams.reshape(256, 256).sum(axis=1)
    bigram = _entropy(bigrams) - _entropy(before)  # H(a, b) - H(a) = H(b | a)
    return Entropies(uniform=8.0, unigram=_entropy(unigrams), bigram=bigram)


def _entropy(counts: NDArray[np.int64]) -> float:
    """Return the entropy, in bits, of the distribution of the counts."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0  # not -0.0 for a single value
