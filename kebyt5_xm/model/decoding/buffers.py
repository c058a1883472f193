"""Buffers of one decoder step: every result of a layer, and all views of them that a step needs, made once.

A layout that a matrix product can read directly is used as it is; another is copied into a buffer that it can read.
With one row and one new id nothing is copied.

Letters in shapes: G independent rows of attention, Q queries of each, M = G x Q, K attended positions, H heads,
d width of a head, I = H x d, D the model's width, F the inner width of the feed-forward layer.
"""

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.weights import DecoderWeights, Norm

KeysAndValues = tuple[Tensor, Tensor]
"""Keys [G H, d, K] and values [G H, K, d]."""


class Attention:
    """Attends from queries [M, I], the first I columns of `projected`; there are G = `rows` of Q queries each."""

    def __init__(self, projected: Tensor, rows: int, num_heads: int, width: int, num_keys: int) -> None:
        inner = num_heads * width
        num_queries = len(projected) // rows
        per_head = (rows * num_heads, num_queries, width)
        self._queries = projected[:, :inner].view(rows, num_queries, num_heads, width).transpose(1, 2)
        self._copied = rows * num_queries > 1
        self._readable = projected.new_empty(per_head) if self._copied else self._queries.reshape(per_head)
        self._scores = projected.new_empty(rows * num_heads, num_queries, num_keys)
        self._probabilities = torch.empty_like(self._scores)
        self._scores_by_row = self._scores.view(rows, num_heads, num_queries, num_keys)
        self._context = projected.new_empty(per_head)
        self._context_by_row = self._context.view(rows, num_heads, num_queries, width).transpose(1, 2)
        self._merged = num_queries > 1
        self._output = (
            projected.new_empty(len(projected), inner) if self._merged else self._context.view(-1, inner)
        )

    def __call__(self, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the context [M, I]; `bias` is added to the scores [G, H, Q, K]."""
        if self._copied:
            self._readable.view(self._queries.shape).copy_(self._queries)
        torch.bmm(self._readable, keys, out=self._scores)
        if bias is not None:
            self._scores_by_row.add_(bias)
        torch.softmax(self._scores, -1, out=self._probabilities)
        torch.bmm(self._probabilities, values, out=self._context)
        if self._merged:
            self._output.view(self._context_by_row.shape).copy_(self._context_by_row)
        return self._output


class Buffers:
    """The buffers for M = `rows` x `num_new` ids that attend to `span` positions of themselves and to S states.

    Args:
        encoder_rows: their number; decoder rows of one encoder row attend to its states together.
        cache: keys and values of every layer, [L, 2, T, B, I].
    """

    def __init__(
        self,
        weights: DecoderWeights,
        cache: Tensor,
        encoder_rows: int,
        num_new: int,
        span: int,
        num_states: int,
    ) -> None:
        rows, dtype = cache.shape[3], weights.dtype
        count, d_model = rows * num_new, weights.embedding.shape[1]
        heads, width = weights.num_heads, weights.d_kv
        inner = heads * width
        self.span = span
        self._padded = weights.embedding.new_zeros(
            count, d_model + 8
        )  # rows stay aligned for matrix products
        self._padded[:, d_model] = (weights.epsilon * d_model) ** 0.5
        self.stream = self._padded[:, :d_model]
        """The residual stream [M, D], in the embedding's dtype."""
        self._length = torch.empty(count, 1, device=cache.device, dtype=torch.float32)
        self._divided = torch.empty(count, d_model, device=cache.device, dtype=torch.float32)
        self._half = self._divided if dtype == torch.float32 else self._divided.to(dtype)

        self.qkv = cache.new_empty(count, 3 * inner)
        self.new_keys_and_values = self.qkv.view(rows, num_new, 3, inner)[:, :, 1:].permute(2, 1, 0, 3)
        """Of the new ids, [2, n, B, I]."""
        self.attend = Attention(self.qkv, rows, heads, width, span)
        self.cached: list[KeysAndValues] = []
        """Keys and values of each layer's attended positions."""
        for keys, values in cache[:, :, :span]:
            by_head = (span, rows * heads, width)
            self.cached.append((keys.view(by_head).permute(1, 2, 0), values.view(by_head).transpose(0, 1)))

        self.cross_q = cache.new_empty(count, inner)
        self.cross_attend = Attention(self.cross_q, encoder_rows, heads, width, num_states)

        self.inner = cache.new_empty(count, weights.d_ff * (1 + weights.gated))
        self.gate = self.inner[:, : weights.d_ff]
        self.linear = self.inner[:, weights.d_ff :]

    def normed(self, norm: Norm) -> Tensor:
        """Return the residual stream divided by its root mean square, times the norm's gain, [M, D]."""
        torch.linalg.vector_norm(self._padded, dim=1, keepdim=True, dtype=torch.float32, out=self._length)
        torch.div(self.stream, self._length, out=self._divided)
        if norm.gain is not None:
            self._divided.mul_(norm.gain)
        return self._divided if self._half is self._divided else self._half.copy_(self._divided)
