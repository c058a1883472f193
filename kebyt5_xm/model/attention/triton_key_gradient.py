"""The gradients of keys, values and the keys' scores in Triton: a program computes a tile of keys of one head.

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
def key_kernel(
    query, key, value, table, query_segments, key_segments, query_positions, key_positions, query_slots, key_slots,
    key_scores, log_sums,  # see `triton_forward`
    grad_output, delta,  # see `triton_query_gradient`
    grad_key,  # [B, H, S, d]
    grad_value,
    grad_key_scores,  # [B, H, S] fp32, or None
    query_strides, key_strides, value_strides, grad_output_strides, grad_key_strides, grad_value_strides,
    num_heads, num_queries, num_keys, max_distance,
    WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    ALL_QUERIES: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    query += row * query_strides[0] + head * query_strides[1]
    key += row * key_strides[0] + head * key_strides[1]
    value += row * value_strides[0] + head * value_strides[1]
    grad_output += row * grad_output_strides[0] + head * grad_output_strides[1]
    grad_key += row * grad_key_strides[0] + head * grad_key_strides[1]
    grad_value += row * grad_value_strides[0] + head * grad_value_strides[1]
    log_sums += (row * num_heads + head) * num_queries
    delta += (row * num_heads + head) * num_queries
    query_segments = start_of(query_segments, row, num_queries)
    key_segments = start_of(key_segments, row, num_keys)
    query_positions = start_of(query_positions, row, num_queries)
    key_positions = start_of(key_positions, row, num_keys)
    query_slots = start_of(query_slots, row, num_queries)
    key_slots = start_of(key_slots, row, num_keys)
    key_scores = start_of(key_scores, row, num_keys)

    places = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    own_segments = load(key_segments, places, num_keys)
    first, end = seen_range(own_segments, query_segments, num_queries)
    if CAUSAL:
        first = tl.minimum(tl.maximum(first, tile * BLOCK_K), end)

    keys = load_tile(key, key_strides[2], places, num_keys, WIDTH, BLOCK_WIDTH, False)
    values = load_tile(value, value_strides[2], places, num_keys, WIDTH, BLOCK_WIDTH, False)
    key_sums = tl.zeros([BLOCK_K, BLOCK_WIDTH], tl.float32)
    value_sums = tl.zeros([BLOCK_K, BLOCK_WIDTH], tl.float32)
    score_sums = tl.zeros([BLOCK_K], tl.float32)
    if table is None:
        key_sums, value_sums, score_sums = _keys(
            key_sums, value_sums, score_sums, keys, values, query, grad_output, log_sums, delta, None, 0.0,
            first // BLOCK_Q * BLOCK_Q, end,
            places, query_positions, key_positions, query_segments, own_segments, query_slots, key_slots, key_scores,
            query_strides, grad_output_strides, num_queries, num_keys, max_distance, grad_key_scores is not None,
            WIDTH, BLOCK_WIDTH, BLOCK_Q, ALL_QUERIES, CAUSAL, False, PRECISION,
        )  # fmt: skip
    else:
        table += head * (2 * max_distance + 1)
        near_first, near_end = near_range(
            key_positions, places, num_keys, query_positions, num_queries, max_distance
        )
        begin, near_begin, near_stop, end = runs(first, end, near_first, near_end, BLOCK_Q)
        for run in tl.static_range(3):
            if run == 0:  # queries before the keys: the distance is positive
                start, stop, far_bias = begin, near_begin, tl.load(table + 2 * max_distance)
            elif run == 1:
                start, stop, far_bias = near_begin, near_stop, 0.0
            else:
                start, stop, far_bias = near_stop, end, tl.load(table)
            key_sums, value_sums, score_sums = _keys(
                key_sums, value_sums, score_sums, keys, values, query, grad_output, log_sums, delta, table, far_bias,
                start, stop,
                places, query_positions, key_positions, query_segments, own_segments, query_slots, key_slots,
                key_scores, query_strides, grad_output_strides, num_queries, num_keys, max_distance,
                grad_key_scores is not None, WIDTH, BLOCK_WIDTH, BLOCK_Q, ALL_QUERIES,
                CAUSAL and (run == 1 or query_positions is not None), run == 1, PRECISION,
            )  # fmt: skip
    store_tile(grad_key, grad_key_strides[2], places, num_keys, key_sums, WIDTH, BLOCK_WIDTH)
    store_tile(grad_value, grad_value_strides[2], places, num_keys, value_sums, WIDTH, BLOCK_WIDTH)
    if grad_key_scores is not None:
        grad_key_scores += (row * num_heads + head) * num_keys
        tl.store(grad_key_scores + places, score_sums, mask=places < num_keys)


@triton.jit
def _keys(
    key_sums, value_sums, score_sums, keys, values, query, grad_output, log_sums, delta, table, far_bias, start, stop,
    places, query_positions, key_positions, query_segments, own_segments, query_slots, key_slots, key_scores,
    query_strides, grad_output_strides, num_queries, num_keys, max_distance, SCORES: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, ALL_QUERIES: tl.constexpr,
    CAUSAL: tl.constexpr, NEAR: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradients of keys, values and keys' scores after one run of tiles of queries."""
    own_positions = load(key_positions, places, num_keys)
    own_slots = load(key_slots, places, num_keys)
    own_scores = load(key_scores, places, num_keys)
    for begin in range(start, stop, BLOCK_Q):
        query_places = begin + tl.arange(0, BLOCK_Q)
        inside = query_places < num_queries
        queries = load_tile(
            query, query_strides[2], query_places, num_queries, WIDTH, BLOCK_WIDTH, ALL_QUERIES
        )
        grad = load_tile(
            grad_output, grad_output_strides[2], query_places, num_queries, WIDTH, BLOCK_WIDTH, ALL_QUERIES
        )
        # +inf beyond the last query: its weights are zero
        sums = tl.load(log_sums + query_places, mask=inside, other=float("inf"))
        own_delta = tl.load(delta + query_places, mask=inside, other=0.0)
        scores, rest = score(
            tl.dot(keys, tl.trans(queries), input_precision=PRECISION),
            table,
            far_bias,
            max_distance,
            across(query_places),
            down(places),
            across(load(query_positions, query_places, num_queries)),
            down(own_positions),
            across(load(query_segments, query_places, num_queries)),
            down(own_segments),
            across(load(query_slots, query_places, num_queries)),
            down(own_slots),
            down(own_scores),
            num_keys,
            CAUSAL,
            NEAR,
            True,  # keys beyond the last are not stored
        )
        weights = tl.exp2(scores * LOG2E - ((sums - rest) * LOG2E)[None, :])
        value_sums = tl.dot(weights.to(grad.dtype), grad, value_sums, input_precision=PRECISION)
        grad_weights = tl.dot(values, tl.trans(grad), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - own_delta[None, :])
        key_sums = tl.dot(grad_scores.to(queries.dtype), queries, key_sums, input_precision=PRECISION)
        if SCORES:
            score_sums += tl.sum(grad_scores, 1)
    return key_sums, value_sums, score_sums
