"""The gradients of queries and of the bias table in Triton, without additions in an unknown order.

A program computes the gradient of a tile of queries of one head, and its share of the gradient of the bias table.

The share of the table: tiles beyond its largest distance M give one number each. In a near tile of consecutive
positions the gradient of the scores is summed by diagonal: row i is rotated left by i, so that a diagonal becomes a
column or, where it was wrapped around, a column of a later "turn", and columns are summed. Each sum has its own place
in the program's lines, which the caller adds up. Positions of any order have no such diagonals: there the scores'
gradients are added by distance as integers, in units of 1 / `unit`, which gives the same sum in any order.

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
def query_kernel(
    query, key, value, table, query_segments, key_segments, query_positions, key_positions, query_slots, key_slots,
    key_scores, output, log_sums,  # see `triton_forward`
    grad_output,  # [B, H, T, d]
    grad_query,  # [B, H, T, d]
    delta,  # [B, H, T] fp32: written, the product of output and its gradient
    far_sums,  # see `triton_table_gradient.Shares`; these three are None if the table needs no gradient
    lines,
    unit,
    query_strides, key_strides, value_strides, output_strides, grad_output_strides, grad_query_strides,
    num_heads, num_queries, num_keys, max_distance, line,
    WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    ALL_KEYS: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    if CAUSAL:
        tile = tl.num_programs(0) - 1 - tile
    head = tl.program_id(1)
    row = tl.program_id(2).to(tl.int64)
    query += row * query_strides[0] + head * query_strides[1]
    key += row * key_strides[0] + head * key_strides[1]
    value += row * value_strides[0] + head * value_strides[1]
    output += row * output_strides[0] + head * output_strides[1]
    grad_output += row * grad_output_strides[0] + head * grad_output_strides[1]
    grad_query += row * grad_query_strides[0] + head * grad_query_strides[1]
    log_sums += (row * num_heads + head) * num_queries
    delta += (row * num_heads + head) * num_queries
    query_segments = start_of(query_segments, row, num_queries)
    key_segments = start_of(key_segments, row, num_keys)
    query_positions = start_of(query_positions, row, num_queries)
    key_positions = start_of(key_positions, row, num_keys)
    query_slots = start_of(query_slots, row, num_queries)
    key_slots = start_of(key_slots, row, num_keys)
    key_scores = start_of(key_scores, row, num_keys)

    places = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    inside = places < num_queries
    own_segments = load(query_segments, places, num_queries)
    first, end = seen_range(own_segments, key_segments, num_keys)
    if CAUSAL:
        end = tl.minimum(end, (tile + 1) * BLOCK_Q)
        first = tl.minimum(first, end)

    own = load_tile(query, query_strides[2], places, num_queries, WIDTH, BLOCK_WIDTH, False)
    grad = load_tile(grad_output, grad_output_strides[2], places, num_queries, WIDTH, BLOCK_WIDTH, False)
    result = load_tile(output, output_strides[2], places, num_queries, WIDTH, BLOCK_WIDTH, False)
    own_delta = tl.sum(result.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(delta + places, own_delta, mask=inside)
    own_sums = tl.load(log_sums + places, mask=inside, other=float("inf"))
    sums = tl.zeros([BLOCK_Q, BLOCK_WIDTH], tl.float32)
    if table is None:
        sums, _ = _queries(
            sums, own, grad, own_sums, own_delta, key, value, None, 0.0, first // BLOCK_K * BLOCK_K, end, None, None,
            places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots, key_scores,
            key_strides, value_strides, num_queries, num_keys, max_distance, 0,
            WIDTH, BLOCK_WIDTH, BLOCK_Q, BLOCK_K, ALL_KEYS, CAUSAL, False, False, PRECISION,
        )  # fmt: skip
    else:
        program = (row * num_heads + head) * tl.num_programs(0) + tile
        TURNS: tl.constexpr = 1 + (BLOCK_Q + BLOCK_K - 2) // BLOCK_K
        if lines is not None:
            lines += program * (line if query_positions is not None else TURNS * line)
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
            sums, far_sum = _queries(
                sums, own, grad, own_sums, own_delta, key, value, table, far_bias, start, stop, lines, unit,
                places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots,
                key_scores, key_strides, value_strides, num_queries, num_keys, max_distance, line,
                WIDTH, BLOCK_WIDTH, BLOCK_Q, BLOCK_K, ALL_KEYS,
                CAUSAL and (run == 1 or query_positions is not None), run == 1, lines is not None, PRECISION,
            )  # fmt: skip
            if lines is not None and run != 1:
                tl.store(far_sums + program * 2 + run // 2, tl.sum(far_sum))
    store_tile(grad_query, grad_query_strides[2], places, num_queries, sums, WIDTH, BLOCK_WIDTH)


@triton.jit
def _queries(
    sums, own, grad, own_sums, own_delta, key, value, table, far_bias, start, stop, lines, unit,
    places, query_positions, key_positions, own_segments, key_segments, query_slots, key_slots, key_scores,
    key_strides, value_strides, num_queries, num_keys, max_distance, line,
    WIDTH: tl.constexpr, BLOCK_WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    ALL_KEYS: tl.constexpr, CAUSAL: tl.constexpr, NEAR: tl.constexpr, TABLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Return the gradient of queries after one run of tiles, and the gradient of each query's far bias."""
    own_positions = load(query_positions, places, num_queries)
    own_slots = load(query_slots, places, num_queries)
    far_sum = tl.zeros([BLOCK_Q], tl.float32)
    for begin in range(start, stop, BLOCK_K):
        key_places = begin + tl.arange(0, BLOCK_K)
        keys = load_tile(key, key_strides[2], key_places, num_keys, WIDTH, BLOCK_WIDTH, ALL_KEYS)
        values = load_tile(value, value_strides[2], key_places, num_keys, WIDTH, BLOCK_WIDTH, ALL_KEYS)
        other_positions = load(key_positions, key_places, num_keys)
        other_slots = load(key_slots, key_places, num_keys)
        scores, rest = score(
            tl.dot(own, tl.trans(keys), input_precision=PRECISION),
            table,
            far_bias,
            max_distance,
            down(places),
            across(key_places),
            down(own_positions),
            across(other_positions),
            down(own_segments),
            across(load(key_segments, key_places, num_keys)),
            down(own_slots),
            across(other_slots),
            across(load(key_scores, key_places, num_keys)),
            num_keys,
            CAUSAL,
            NEAR,
            ALL_KEYS,
        )
        weights = tl.exp2(scores * LOG2E - ((own_sums - rest) * LOG2E)[:, None])
        grad_weights = tl.dot(grad, tl.trans(values), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - own_delta[:, None])
        sums = tl.dot(grad_scores.to(keys.dtype), keys, sums, input_precision=PRECISION)
        if TABLE:
            if query_slots is not None:
                touched = (down(own_slots) | across(other_slots)) != 0
                grad_scores = tl.where(touched, 0.0, grad_scores)
            if not NEAR:
                far_sum += tl.sum(grad_scores, 1)
            elif query_positions is None:
                _add_diagonals(
                    lines, line, grad_scores, begin - tl.min(places), max_distance, BLOCK_Q, BLOCK_K
                )
            else:
                distance = across(other_positions) - down(own_positions)
                distance = tl.minimum(tl.maximum(distance, -max_distance), max_distance) + max_distance
                whole = (grad_scores * tl.load(unit)).to(tl.int64)
                tl.atomic_add(lines + distance, whole, mask=whole != 0, sem="relaxed")
    return sums, far_sum


@triton.jit
def _add_diagonals(
    lines, line, grad_scores, offset, max_distance, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr
):
    """Store the sum of each diagonal of a tile whose first key is `offset` after its first query.

    With the distances' origin at M + BLOCK_Q + 2 BLOCK_K, every tile writes places of its own in every turn's line.
    """
    turned = tl.arange(0, BLOCK_K)[None, :] + tl.arange(0, BLOCK_Q)[:, None]
    rotated = tl.gather(grad_scores, turned % BLOCK_K, 1)
    origin = max_distance + BLOCK_Q + 2 * BLOCK_K
    for turn in tl.static_range(1 + (BLOCK_Q + BLOCK_K - 2) // BLOCK_K):  # pyright: ignore
        sums = tl.sum(tl.where(turned // BLOCK_K == turn, rotated, 0.0), 0)
        places = origin + offset - turn * BLOCK_K + tl.arange(0, BLOCK_K)
        tl.store(lines + turn * line + places, sums)
