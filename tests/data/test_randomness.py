"""Counter-based randomness: published vectors, exact integers, bijections."""

from collections import Counter

import numpy as np
import pytest

from kebyt5_xm.data.randomness import hash64, map_to_range, permute

INCREMENT = 0x9E3779B97F4A7C15

# The first outputs of SplitMix64 seeded with 1234567, as published by other implementations.
SPLITMIX64 = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def test_hash_is_splitmix64():
    assert [int(hash64(1234567 + step * INCREMENT)) for step in range(5)] == SPLITMIX64
    assert int(hash64(0)) == 0xE220A8397B1DCDAF
    # A counter selects an output of the generator seeded with the hash so far.
    assert int(hash64(11, 3)) == int(hash64(int(hash64(11)) + 3 * INCREMENT))
    assert int(hash64(11, 3, 5)) == int(hash64(int(hash64(11, 3)) + 5 * INCREMENT))


def test_hash_broadcasts_and_wraps():
    rows, draws = np.arange(2, 7, dtype=np.uint64), np.arange(3)
    table = hash64(-13, rows[:, None], draws)
    assert table.shape == (5, 3)
    assert table.dtype == np.uint64
    assert [[int(hash64(-13, int(r), int(d))) for d in draws] for r in rows] == table.tolist()
    assert hash64(-13) == hash64(2**64 - 13)
    assert hash64(7, -1) == hash64(7, 2**64 - 1) == hash64(7, np.array(-1)) == hash64(7, np.array(2**64 - 1))
    assert hash64(7, np.array(-5, dtype=np.int16)) == hash64(7, -5)
    assert hash64(7, 2, 3) != hash64(7, 3, 2)
    assert hash64(7, np.arange(0)).shape == (0,)


def test_hash_refuses_non_integers():
    with pytest.raises(TypeError, match="float64, expected integers"):
        hash64(1, np.arange(3) / 2)  # pyright: ignore[reportArgumentType]


def test_hash_does_not_change_its_counters():
    counter = np.arange(5, dtype=np.uint64)
    hash64(3, counter, counter)
    assert counter.tolist() == [0, 1, 2, 3, 4]


def test_hash_bits_are_fair():
    bits = hash64(17, np.arange(20_000), 1)
    ones = [int(((bits >> np.uint64(b)) & np.uint64(1)).sum()) for b in range(64)]
    assert all(abs(count - 10_000) < 5 * 71 for count in ones)  # five standard deviations
    neighbours = np.bitwise_count(bits[1:] ^ bits[:-1])
    assert abs(neighbours.mean() - 32) < 0.2


@pytest.mark.parametrize("bound", [1, 2, 7, 2**32 - 1, 2**32, 2**33 + 5, 10**12, 2**63])
def test_below_is_the_exact_high_product(bound):
    bits = np.append(hash64(23, np.arange(97)), np.array([0, 1, 2**32, 2**64 - 1], dtype=np.uint64))
    expected = [int(b) * bound >> 64 for b in bits]
    assert map_to_range(bits, bound).tolist() == expected
    assert map_to_range(bits, np.array([[bound], [5]]))[0].tolist() == expected
    assert map_to_range(bits, bound).dtype == np.int64


def test_below_is_uniform():
    drawn = map_to_range(hash64(29, np.arange(70_000)), 7)
    assert np.abs(np.bincount(drawn, minlength=7) - 10_000).max() < 500


@pytest.mark.parametrize("size", [*range(1, 24), 97, 1009, 10_007])
def test_permute_is_a_bijection(size):
    index = np.arange(size)
    placed = permute(index, size, key=size)
    assert sorted(placed.tolist()) == list(range(size))
    assert index.tolist() == list(range(size))
    assert [permute(i, size, key=size) for i in range(min(size, 5))] == placed[:5].tolist()


def test_permute_gives_all_orders_equally_often():
    orders = Counter(tuple(permute(np.arange(4), 4, key).tolist()) for key in range(2400))
    assert len(orders) == 24
    assert all(50 < count < 150 for count in orders.values())


def test_permute_large():
    size = 10**12
    index = np.arange(size - 100_003, size)
    placed = permute(index, size, key=-31)
    assert placed.min() >= 0
    assert placed.max() < size
    assert len(np.unique(placed)) == 100_003
    # Spread over the whole range, not in order.
    assert np.abs(np.bincount(placed // (size // 10), minlength=10)[:10] - 10_000).max() < 500
    assert abs(np.mean(np.diff(placed) > 0) - 0.5) < 0.01
    assert not np.array_equal(placed, permute(index, size, key=-37))


@pytest.mark.parametrize("index", [-1, 5, np.array([0, 5])])
def test_permute_refuses_an_index_outside(index):
    with pytest.raises(IndexError, match="expected 0 to 4"):
        permute(index, 5, key=1)


def test_values_are_the_same_on_every_machine():
    """Pinned: a change here changes the order of every run, and no checkpoint resumes exactly."""
    assert int(hash64(42, 7, 3)) == 12500853387672008909
    assert permute(np.arange(11), 11, key=42).tolist() == [5, 0, 9, 3, 10, 1, 4, 7, 6, 8, 2]
    assert permute(10**11 + 1, 10**12, key=42) == 924328952556
