"""What a query sees, and what is added to its scores.

T5's relative bias depends on the distance of key and query alone and is constant from a distance M on, so a stack's
whole bias is a table [H, 2M + 1]: `bias_table`.

Letters in shapes: B rows, H heads, T queries, S keys.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention


@dataclass(frozen=True, eq=False)
class Pattern:
    """Which keys a query sees, and what is added to its scores besides the product; None stands for no rule.

    A query that sees no key has an output of zero, and no gradient passes through it.
    """

    causal: bool = False
    """Query t sees no key after t; needs T = S."""
    query_segments: Tensor | None = None
    """[B, T] integers: a query sees the keys of its segment alone. Without them every query is in segment 1."""
    key_segments: Tensor | None = None
    """[B, S] integers, 0 for keys that no query sees. Without them every key is in segment 1."""
    query_positions: Tensor | None = None
    """[B, T] integers, of which the distance counts; without them 0, 1, 2, ... in every row."""
    key_positions: Tensor | None = None
    """[B, S] integers; given if and only if `query_positions` is."""
    key_scores: Tensor | None = None
    """[B, S], added to every score of a key. Has a gradient."""
    query_slots: Tensor | None = None
    """[B, T] bool: the relative bias is 0 for every pair with a slot."""
    key_slots: Tensor | None = None
    """[B, S] bool; given if and only if `query_slots` is."""

    def visible(self, num_queries: int, num_keys: int, device: torch.device) -> Tensor | None:
        """Return [B or 1, 1, T, S] bool: the query sees the key; None if every query sees every key."""
        seen = None
        keys, queries = self.key_segments, self.query_segments
        if keys is not None:
            same = keys[:, None, :] == (1 if queries is None else queries[:, :, None])
            seen = same & (keys != 0)[:, None, :]
        elif queries is not None:
            seen = (queries == 1)[:, :, None]
        if self.causal:
            earlier = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril()
            seen = earlier[None] if seen is None else seen & earlier
        return None if seen is None else seen[:, None].expand(-1, 1, num_queries, num_keys)

    def bias(self, table: Tensor | None, num_queries: int, num_keys: int) -> Tensor | None:
        """Return what is added to the scores, [B or 1, H or 1, T, S] in the dtype of `table`, or None.

        `table` is [H, 2M + 1], or already the bias of consecutive positions, [1, H, T, S].
        """
        bias = None
        if table is not None:
            bias = self._relative_bias(table, num_queries, num_keys) if table.ndim == 2 else table
            if self.query_slots is not None and self.key_slots is not None:
                touched = self.query_slots[:, :, None] | self.key_slots[:, None, :]
                bias = bias.masked_fill(touched[:, None], 0.0)
        if self.key_scores is not None:
            scores = self.key_scores[:, None, None, :]
            bias = scores if bias is None else bias + scores.to(bias.dtype)
        return bias

    def _relative_bias(self, table: Tensor, num_queries: int, num_keys: int) -> Tensor:
        """Return the bias of every pair, [B or 1, H, T, S]."""
        if self.query_positions is not None and self.key_positions is not None:
            max_distance = table.shape[1] // 2
            distance = self.key_positions[:, None, :] - self.query_positions[:, :, None]  # [B, T, S]
            place = distance.clamp(-max_distance, max_distance) + max_distance
            return table[:, place].transpose(0, 1)
        return spread(table, num_queries, num_keys)


def spread(table: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """Return the bias of consecutive positions, [1, H, T, S], from `table` [H, 2M + 1]."""
    max_distance = table.shape[1] // 2
    first, last = (
        1 - num_queries,
        num_keys - 1,
    )  # distances from the last query to the first key, and vice versa
    distances = torch.arange(first, last + 1, device=table.device).clamp(-max_distance, max_distance)
    line = table.index_select(1, distances + max_distance)  # [H, T + S - 1]
    return line.unfold(1, num_keys, 1).flip(1)[None]  # the last query begins at the smallest distance


def bias_table(attention: T5Attention) -> Tensor:
    """Return a stack's relative bias by distance, [H, 2M + 1], from its first self-attention.

    The distance is the key's position minus the query's. M is the distance from which on the bias is constant: 91 in
    a published T5's encoder, 113 in its decoder.
    """
    weight = attention.relative_attention_bias.weight  # [buckets, H]
    buckets = _buckets(
        not attention.is_decoder,
        attention.relative_attention_num_buckets,
        attention.relative_attention_max_distance,
    )
    return weight.index_select(0, torch.tensor(buckets, device=weight.device)).t()


@cache
def _buckets(bidirectional: bool, num_buckets: int, max_distance: int) -> list[int]:
    """Return the bucket of every distance from -M to M; beyond them it is that of -M or M."""
    distances = torch.arange(-max_distance, max_distance + 1)
    buckets = T5Attention._relative_position_bucket(distances, bidirectional, num_buckets, max_distance)
    differs = (buckets != buckets[0]) & (distances < 0) | (buckets != buckets[-1]) & (distances >= 0)
    constant_from = int(distances[differs].abs().max()) + 1 if differs.any() else 1
    return buckets[max_distance - constant_from : max_distance + constant_from + 1].tolist()
