"""What the Triton kernels of attention share: which tiles a tile needs, and the scores of a pair of tiles.

A tile is a block of consecutive queries or keys. One that is held ("own") meets a range of others, in three runs: the
others beyond the bias table at one side, whose bias is one number; the near ones, whose bias is read by distance; and
the others beyond it at the other side. Tiles that segments or causality hide wholly are outside the range; ranges
assume nothing of the order of segments and positions, and are tight where both increase. Everything is computed on
the device. A pointer is None where the pattern has no such rule.

Importing this needs Triton. Letters: M largest distance of the bias table.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
SCAN = tl.constexpr(1024)
"""Segments or positions read at once when a range is computed."""
MAX_INT = tl.constexpr(2147483647)


@triton.jit
def load(pointer, places, length):
    """Return the numbers of a row at `places`, 0 outside; None without a pointer."""
    if pointer is None:
        values = None
    else:
        values = tl.load(pointer + places, mask=places < length, other=0)
    return values


@triton.jit
def across(values):
    """Return a vector as a row [1, n]."""
    if values is None:
        row = None
    else:
        row = values[None, :]
    return row


@triton.jit
def down(values):
    """Return a vector as a column [n, 1]."""
    if values is None:
        column = None
    else:
        column = values[:, None]
    return column


@triton.jit
def start_of(pointer, row, length):
    """Return where a row of [B, length] begins."""
    if pointer is None:
        start = None
    else:
        start = pointer + row * length
    return start


@triton.jit
def seen_range(own_segments, others, length):
    """Return the first other whose segment may be among the tile's, and the last plus one; 0, 0 if there is none."""
    if own_segments is None:
        first = 0
        end = length
    else:
        smallest = tl.min(tl.where(own_segments != 0, own_segments, MAX_INT))
        largest = tl.max(tl.where(own_segments != 0, own_segments, -MAX_INT))
        first = length
        end = 0
        for start in range(0, length, SCAN):
            places = start + tl.arange(0, SCAN)
            segments = tl.load(others + places, mask=places < length, other=0)
            meets = (segments >= smallest) & (segments <= largest) & (segments != 0)
            first = tl.minimum(first, tl.min(tl.where(meets, places, length)))
            end = tl.maximum(end, tl.max(tl.where(meets, places + 1, 0)))
        first = tl.minimum(first, end)
    return first, end


@triton.jit
def near_range(own_pointer, own_places, own_length, others, length, max_distance):
    """Return the first other that is not wholly below the tile by M, and the last that is not above, plus one.

    Below and above compare positions. Every other outside the range is at a distance of at least M from the whole
    tile.
    """
    if own_pointer is None:
        first = tl.maximum(tl.min(own_places) - max_distance + 1, 0)
        end = tl.minimum(tl.minimum(tl.max(own_places), own_length - 1) + max_distance, length)
    else:
        inside = own_places < own_length
        own = tl.load(own_pointer + own_places, mask=inside, other=0)
        smallest = tl.min(tl.where(inside, own, MAX_INT)) - max_distance
        largest = tl.max(tl.where(inside, own, -MAX_INT)) + max_distance
        first = length
        end = 0
        for start in range(0, length, SCAN):
            places = start + tl.arange(0, SCAN)
            exists = places < length
            positions = tl.load(others + places, mask=exists, other=0)
            first = tl.minimum(first, tl.min(tl.where(exists & (positions > smallest), places, length)))
            end = tl.maximum(end, tl.max(tl.where(exists & (positions < largest), places + 1, 0)))
    return first, end


@triton.jit
def runs(first, end, near_first, near_end, BLOCK: tl.constexpr):
    """Return where the three runs over [first, end) begin and end, as tiles: four numbers."""
    begin = first // BLOCK * BLOCK
    near_begin = tl.minimum(tl.maximum(near_first // BLOCK * BLOCK, begin), end)
    near_stop = tl.minimum(tl.maximum(tl.cdiv(near_end, BLOCK) * BLOCK, near_begin), end)
    return begin, near_begin, near_stop, end


@triton.jit
def score(
    product,
    table,
    far_bias,
    max_distance,
    query_places,
    key_places,
    query_positions,
    key_positions,
    query_segments,
    key_segments,
    query_slots,
    key_slots,
    key_scores,
    num_keys,
    CAUSAL: tl.constexpr,
    NEAR: tl.constexpr,
    ALL_KEYS: tl.constexpr,
):
    """Return the scores of a pair of tiles from their product, and a bias that they still lack.

    One of queries and keys runs along rows, the other along columns. `far_bias` is the bias of a tile that is not
    near; it is left to the caller, who adds it to a vector instead. `CAUSAL` may be False for tiles that
    causality does not cut, `ALL_KEYS` says that no key is beyond `num_keys`.
    """
    scores = product
    rest = 0.0
    if NEAR:
        if query_positions is None:
            distance = key_places - query_places
        else:
            distance = key_positions - query_positions
        entry = tl.minimum(tl.maximum(distance + max_distance, 0), 2 * max_distance)
        bias = tl.load(table + entry)
        if query_slots is not None:
            bias = tl.where((query_slots | key_slots) != 0, 0.0, bias)
        scores += bias
    elif query_slots is not None:
        scores += tl.where((query_slots | key_slots) != 0, 0.0, far_bias)
    else:
        rest = far_bias
    if key_scores is not None:
        scores += key_scores
    if key_segments is not None:
        seen = (query_segments == key_segments) & (key_segments != 0)
        scores = tl.where(seen, scores, float("-inf"))
    elif not ALL_KEYS:
        scores = tl.where(key_places < num_keys, scores, float("-inf"))
    if CAUSAL:
        if NEAR and query_positions is None:
            scores = tl.where(entry <= max_distance, scores, float("-inf"))  # pyright: ignore
        else:
            scores = tl.where(key_places <= query_places, scores, float("-inf"))
    return scores, rest


@triton.jit
def load_tile(
    pointer, stride, places, length, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, ALL: tl.constexpr
):
    """Return rows [places, BLOCK_WIDTH], zeros outside; `ALL` says that no place is beyond `length`."""
    columns = tl.arange(0, BLOCK_WIDTH)
    pointers = pointer + places[:, None].to(tl.int64) * stride + columns[None, :]
    if WIDTH == BLOCK_WIDTH:
        if ALL:
            tile = tl.load(pointers)
        else:
            tile = tl.load(pointers, mask=places[:, None] < length, other=0.0)
    else:
        tile = tl.load(pointers, mask=(places[:, None] < length) & (columns[None, :] < WIDTH), other=0.0)
    return tile


@triton.jit
def store_tile(pointer, stride, places, length, tile, WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr):
    """Store the rows of a tile that exist."""
    columns = tl.arange(0, BLOCK_WIDTH)
    pointers = pointer + places[:, None].to(tl.int64) * stride + columns[None, :]
    mask = (places[:, None] < length) & (columns[None, :] < WIDTH)
    tl.store(pointers, tile.to(pointer.dtype.element_ty), mask=mask)
