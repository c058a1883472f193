"""Spans of the same size are computed together, as the rows of one batch: a packed row may hold dozens of them.

Letters in shapes: B rows, H heads, L positions, d width of a head, T queries, S keys, G spans of a group, V queries
in a span.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from kebyt5_xm.model.attention.pattern import Pattern
from kebyt5_xm.model.attention.spans import Span, find_spans


@dataclass(frozen=True)
class SpanGroups:
    """The spans of a pattern by their numbers of queries and keys.

    Attributes:
        groups: the spans of each size.
        query_order: [V], the place of each query among all B x T, group by group.
        key_order: the same for the keys that they see, among all B x S.
        output_order: [B x T], the place of each query in `query_order`, V for those in no span.
    """

    groups: list[list[Span]]
    query_order: Tensor
    key_order: Tensor
    output_order: Tensor

    def split(
        self, query: Tensor, key: Tensor, value: Tensor, pattern: Pattern
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Pattern]]:
        """Yield the queries [G, H, T, d], keys and values [G, H, S, d] of every group, and the pattern within it."""
        heads, width = query.shape[1], query.shape[3]
        query, key, value = (
            F.embedding(order, tensor.transpose(1, 2).flatten(2).flatten(0, 1))
            for tensor, order in ((query, self.query_order), (key, self.key_order), (value, self.key_order))
        )  # a look-up in a table: on the CPU its backward pass is several times as fast as that of an index
        start = key_start = 0
        for spans in self.groups:
            span = spans[0]
            length, num_keys = span.stop - span.start, span.key_stop - span.key_start
            stop, key_stop = start + len(spans) * length, key_start + len(spans) * num_keys
            yield (
                query[start:stop].view(len(spans), length, heads, width).transpose(1, 2),
                key[key_start:key_stop].view(len(spans), num_keys, heads, width).transpose(1, 2),
                value[key_start:key_stop].view(len(spans), num_keys, heads, width).transpose(1, 2),
                _narrow(pattern, spans),
            )
            start, key_start = stop, key_stop

    def join(self, outputs: list[Tensor], num_rows: int) -> Tensor:
        """Return [B, H, T, d] from the outputs [G, H, T, d] of the groups: zero for queries in no span."""
        heads, width = outputs[0].shape[1], outputs[0].shape[3]
        found = [output.transpose(1, 2).reshape(-1, heads * width) for output in outputs]
        if len(self.query_order) < len(self.output_order):
            found.append(found[0].new_zeros(1, heads * width))
        output = F.embedding(self.output_order, torch.cat(found))
        return output.view(num_rows, -1, heads, width).transpose(1, 2)


_grouped: WeakKeyDictionary[Pattern, SpanGroups | None] = WeakKeyDictionary()
"""The groups of a pattern, which all layers share."""


def group_spans(
    pattern: Pattern, num_rows: int, num_queries: int, num_keys: int, device: torch.device
) -> SpanGroups | None:
    """Return the groups of a pattern's spans; None without spans, or if `find_spans` cannot tell them."""
    if pattern not in _grouped:
        spans = find_spans(pattern, num_rows, num_queries, num_keys)
        _grouped[pattern] = _group(spans, num_rows, num_queries, num_keys, device) if spans else None
    return _grouped[pattern]


def _group(
    spans: list[Span], num_rows: int, num_queries: int, num_keys: int, device: torch.device
) -> SpanGroups:
    by_size: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        size = span.stop - span.start, span.key_stop - span.key_start
        by_size.setdefault(size, []).append(span)
    in_order = [span for group in by_size.values() for span in group]
    queries = [range(s.row * num_queries + s.start, s.row * num_queries + s.stop) for s in in_order]
    keys = [range(s.row * num_keys + s.key_start, s.row * num_keys + s.key_stop) for s in in_order]
    query_order = torch.tensor([place for run in queries for place in run])
    output_order = torch.full((num_rows * num_queries,), len(query_order))
    output_order[query_order] = torch.arange(len(query_order))
    return SpanGroups(
        groups=list(by_size.values()),
        query_order=query_order.to(device, non_blocking=True),
        key_order=torch.tensor([place for run in keys for place in run]).to(device, non_blocking=True),
        output_order=output_order.to(device, non_blocking=True),
    )


def _narrow(pattern: Pattern, spans: list[Span]) -> Pattern:
    """Return the pattern within spans of one size, without segments: its tensors are [G, T or S]."""

    def cut(tensor: Tensor | None, of_keys: bool) -> Tensor | None:
        if tensor is None:
            return None
        bounds = ((s.row, s.key_start, s.key_stop) if of_keys else (s.row, s.start, s.stop) for s in spans)
        return torch.stack([tensor[row, start:stop] for row, start, stop in bounds])

    return Pattern(
        causal=pattern.causal,
        query_positions=cut(pattern.query_positions, False),
        key_positions=cut(pattern.key_positions, True),
        key_scores=cut(pattern.key_scores, True),
        query_slots=cut(pattern.query_slots, False),
        key_slots=cut(pattern.key_slots, True),
    )
