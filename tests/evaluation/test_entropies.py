"""Entropies of held-out bytes: known values, and the same values across block borders."""

import math
from pathlib import Path

import numpy as np
import pytest

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation import entropies as module
from kebyt5_xm.evaluation.entropies import measure_entropies


def test_known_entropies():
    alternating = measure_entropies(np.frombuffer(b"abababababa", np.uint8))
    assert alternating.uniform == 8
    assert alternating.unigram == pytest.approx(-(6 * math.log2(6 / 11) + 5 * math.log2(5 / 11)) / 11)
    assert alternating.bigram == pytest.approx(0)
    assert measure_entropies(np.tile(np.arange(256, dtype=np.uint8), 3)).unigram == pytest.approx(8)
    assert measure_entropies(np.zeros(7, np.uint8)).unigram == 0
    # After a: b twice, a once; after b: a once, b once. One pair in five follows b twice.
    mixed = measure_entropies(np.frombuffer(b"abbaab", np.uint8))
    assert mixed.bigram == pytest.approx(3 / 5 * -(2 * math.log2(2 / 3) + math.log2(1 / 3)) / 3 + 2 / 5)


def test_a_slow_count_agrees_across_block_borders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    held_out = np.random.default_rng(5).choice(np.frombuffer(b"aab c", np.uint8), 331)
    pairs: dict[tuple[int, int], int] = {}
    for pair in zip(held_out[:-1].tolist(), held_out[1:].tolist(), strict=True):
        pairs[pair] = pairs.get(pair, 0) + 1
    before = {a: sum(n for (x, _), n in pairs.items() if x == a) for a, _ in pairs}
    expected = -sum(n * math.log2(n / before[a]) for (a, _), n in pairs.items()) / 330
    whole = measure_entropies(held_out)
    assert whole.bigram == pytest.approx(expected)
    (tmp_path / "bytes").write_bytes(held_out.tobytes())
    mapped = np.memmap(tmp_path / "bytes", np.uint8, "r")
    for block in (1, 7, 110, 330, 331):
        monkeypatch.setattr(module, "BLOCK_BYTES", block)
        assert measure_entropies(mapped) == whole


def test_chunks_pair_up_inside_themselves(monkeypatch: pytest.MonkeyPatch):
    chunks = np.frombuffer(b"abcabdabe", np.uint8).reshape(3, 3)
    expected = measure_entropies(chunks)
    assert expected.bigram == pytest.approx(math.log2(3) / 2)  # a -> b surely, b -> c, d or e; none across
    monkeypatch.setattr(module, "BLOCK_BYTES", 4)
    assert measure_entropies(chunks) == expected


@pytest.mark.parametrize("shape", [(0,), (1,), (5, 1), (0, 7)])
def test_too_few_bytes(shape: tuple[int, ...]):
    with pytest.raises(UserError, match="held-out"):
        measure_entropies(np.zeros(shape, np.uint8))
