"""The forward kernel of attention in Triton: one program computes a tile of queries of one head.

Importing this needs Triton. Letters in shapes: B rows, H heads, T queries, S keys, d width, M largest distance.
"""

import triton
import triton.language as tl

from kebyt5_xm.model.attention.triton_tiles import (
    LOG2E,
    across,
    down,
    load,
    load_tile,
    near_range,
    runs,
    score,
    seen_range,
    start_of,
    store_tile,
)


@triton.jit
def forward_kernel(
    query,  # [B, H, T, d]
    key,  # [B, H, S, d]
    value,
    table,  # [H, 2M + 1] fp32, or None
    query_segments,  # [B, T] int32, or None; so are the next, [B, T] and [B, S]
    key_segments,
    query_positions,
    key_positions,
    query_slots,
    key_slots,
    key_scores,  # [B, S] fp32, or None
    output,  # [B, H, T, d]
    log_sums,  # [B, H, T] fp32: logarithm of the sum of exponentials, +inf for a query that sees no key
    query_strides,  # of B, H, T
    key_strides,
    value_strides,
    output_strides,
    num_heads,
    num_queries,
    num_keys,
    max_distance,
    WIDTH: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ALL_KEYS: tl.constexpr,  # S is a multiple of BLOCK_K
    CAUSAL: tl.constexpr,
    PRECISION: tl.constexpr,
):
    tile = tl.program_id(0)
    if CAUSAL:  # the longest first
        tile = tl.num_programs(0) - 1 - tile
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    query += row * query_strides[0] + head * query_strides[1]
    key += row * key_strides[0] + head * key_strides[1]
    value += row * value_strides[0] + head * value_strides[1]
    output += row * output_strides[0] + head * output_strides[1]
    log_sums += (row * num_heads + head) * num_queries
    query_segments = start_of(query_segments, row, num_queries)
    key_segments = start_of(key_segments, row, num_keys)
    query_positions = start_of(query_positions, row, num_queries)
    key_positions = start_of(key_positions, row, num_keys)
    query_slots = start_of(query_slots, row, num_queries)
    key_slots = start_of(key_slots, row, num_keys)
    key_scores = start_of(key_scores, row, num_keys)

    places = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    own_segments = load(query_segments, places, num_queries)
    first, end = seen_range(own_segments, key_segments, num_keys)
    if CAUSAL:
        end = tl.minimum(end, (tile + 1) * BLOCK_Q)
        first = tl.minimum(first, end)

    own = load_tile(query, query_strides[2], places, num_queries, WIDTH, BLOCK_WIDTH, False)
    sums = tl.zeros([BLOCK_Q, BLOCK_WIDTH], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    if table is None:
        sums, total, top = _attend(
            sums, total, top, own, key, value, None, 0.0, first // BLOCK_K * BLOCK_K, end,
            places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots, key_scores,
            key_strides, value_strides, num_queries, num_keys, max_distance,
            WIDTH, BLOCK_WIDTH, BLOCK_K, ALL_KEYS, CAUSAL, False, PRECISION,
        )  # fmt: skip
    else:
        table += head * (2 * max_distance + 1)
        near_first, near_end = near_range(
            query_positions, places, num_queries, key_positions, num_keys, max_distance
        )
        begin, near_begin, near_stop, end = runs(first, end, near_first, near_end, BLOCK_K)
        for run in tl.static_range(3):
            if run == 0:
                start, stop, far_bias = begin, near_begin, tl.load(table)
            elif run == 1:
                start, stop, far_bias = near_begin, near_stop, 0.0
            else:
                start, stop, far_bias = near_stop, end, tl.load(table + 2 * max_distance)
            sums, total, top = _attend(
                sums, total, top, own, key, value, table, far_bias, start, stop,
                places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots,
                key_scores, key_strides, value_strides, num_queries, num_keys, max_distance,
                WIDTH, BLOCK_WIDTH, BLOCK_K, ALL_KEYS, CAUSAL and (run == 1 or query_positions is not None), run == 1,
                PRECISION,
            )  # fmt: skip

    empty = total == 0.0
    total = tl.where(empty, 1.0, total)
    store_tile(output, output_strides[2], places, num_queries, sums / total[:, None], WIDTH, BLOCK_WIDTH)
    tl.store(
        log_sums + places,
        tl.where(empty, float("inf"), top + tl.log(total)),
        mask=places < num_queries,
    )


@triton.jit
def _attend(
    sums, total, top, own, key, value, table, far_bias, start, stop,
    places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots, key_scores,
    key_strides, value_strides, num_queries, num_keys, max_distance,
    WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_K: tl.constexpr, ALL_KEYS: tl.constexpr,
    CAUSAL: tl.constexpr, NEAR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the weighted sums of values, the sums of weights and the largest scores after one run of tiles."""
    own_positions = load(query_positions, places, num_queries)
    own_slots = load(query_slots, places, num_queries)
    for begin in range(start, stop, BLOCK_K):
        key_places = begin + tl.arange(0, BLOCK_K)
        keys = load_tile(key, key_strides[2], key_places, num_keys, WIDTH, BLOCK_WIDTH, ALL_KEYS)
        scores, rest = score(
            tl.dot(own, tl.trans(keys), input_precision=PRECISION),
            table,
            far_bias,
            max_distance,
            down(places),
            across(key_places),
            down(own_positions),
            across(load(key_positions, key_places, num_keys)),
            down(own_segments),
            across(load(key_segments, key_places, num_keys)),
            down(own_slots),
            across(load(key_slots, key_places, num_keys)),
            across(load(key_scores, key_places, num_keys)),
            num_keys,
            CAUSAL,
            NEAR,
            ALL_KEYS,
        )
        higher = tl.maximum(top, tl.max(scores, 1) + rest)
        finite = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(scores * LOG2E - ((finite - rest) * LOG2E)[:, None])
        decay = tl.exp2((top - finite) * LOG2E)
        total = total * decay + tl.sum(weights, 1)
        values = load_tile(value, value_strides[2], key_places, num_keys, WIDTH, BLOCK_WIDTH, ALL_KEYS)
        sums = tl.dot(weights.to(values.dtype), values, sums * decay[:, None], input_precision=PRECISION)
        top = higher
    return sums, total, top
