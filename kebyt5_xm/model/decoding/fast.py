"""A T5 decoder without modules: the fewest operations that give the same logits.

Keys and values of the ids are written into a preallocated cache, those of the encoder are computed once, and every
result has a buffer that lives as long as the number of new ids and the attended span stay the same. Attention covers
a whole number of `SPAN` positions; the relative bias is minus infinity at those not yet written.

The norm's epsilon needs no operation: beside its D numbers, each row of the residual stream holds sqrt(epsilon D), so
its Euclidean norm is sqrt(D) times T5's root mean square.

Letters in shapes: R encoder rows, B = R x copies decoder rows, n new ids of each row, M = B x n, S encoder positions,
T capacity in decoder positions, K attended positions, H heads, d width of a head, I = H x d, D the model's width,
V the vocabulary, L layers.
"""

import torch
from torch import Tensor

from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.decoding.buffers import Buffers, KeysAndValues
from kebyt5_xm.model.decoding.weights import DecoderWeights, Matrix

SPAN = 64
"""Positions by which the attended span grows: buffers are made anew once for as many ids."""


class FastDecoder:
    """A `Decoder` of plain tensors. The encoder's keys and values are those of the weights at construction.

    Args:
        states: the encoder's, [R, S, D].
        attention_mask: [R, S], as `kebyt5_xm.model.encoder_mask` says; None if all states are valid.
        copies: decoder rows of each encoder row.
        capacity: ids that a row will probably hold; more make the cache grow.
    """

    def __init__(
        self,
        weights: DecoderWeights,
        states: Tensor,
        attention_mask: Tensor | None,
        copies: int = 1,
        capacity: int = SPAN,
    ) -> None:
        with torch.inference_mode(), torch.autocast(states.device.type, enabled=False):
            cross = [_cross_keys(weights, layer.cross_kv, states) for layer in weights.layers]
            cross_bias = None
            if attention_mask is not None and (
                attention_mask.is_floating_point() or not attention_mask.all()
            ):
                cross_bias = encoder_mask.additive(attention_mask, weights.dtype)
        self._start(weights, cross, cross_bias, len(states), copies, capacity)

    def _start(
        self,
        weights: DecoderWeights,
        cross: list[KeysAndValues],
        cross_bias: Tensor | None,
        num_encoder_rows: int,
        copies: int,
        capacity: int,
    ) -> None:
        """Begin without ids. `cross` holds, for each layer, keys [R H, d, S] and values [R H, S, d]; `cross_bias` is
        [R, 1, 1, S]."""
        self.length, self.device = 0, weights.embedding.device
        self.weights, self.copies = weights, copies
        self._cross, self._cross_bias = cross, cross_bias
        self._num_encoder_rows = num_encoder_rows
        self._buffers: dict[int, Buffers] = {}
        self.final = weights.embedding
        """What the head was multiplied with in the last step [M, D]; valid until the next."""
        self._cache = weights.embedding.new_zeros(len(weights.layers), 2, 0, 1, 1)
        self._bias, self._zero = self._cache, 0
        with torch.inference_mode():
            self._reserve(max(capacity, 1))

    # -- the interface of a decoder -----------------------------------------------------------------------

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """Return the logits [B, n, V] after each of the next ids [B, n]."""
        return self._step(ids, None)

    def truncate(self, length: int) -> None:
        """Forget the ids after the first `length`."""
        self.length = min(length, self.length)

    @torch.inference_mode()
    def reorder(self, rows: Tensor) -> None:
        """Let row b continue the ids of row `rows[b]`."""
        seen = self._cache[:, :, : self.length]
        seen.copy_(seen.index_select(3, rows))

    @torch.inference_mode()
    def packed_logits(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Return logits [R, N, V] of targets side by side; see `Decoder`."""
        assert self.length == 0
        assert self.copies == 1
        logits = self._step(ids, segments)
        self.length = 0
        return logits

    def select(self, first: int, last: int) -> "FastDecoder":
        """Return a decoder of some encoder rows; it shares their keys and values."""
        heads = self.weights.num_heads
        cross = [
            (keys[first * heads : last * heads], values[first * heads : last * heads])
            for keys, values in self._cross
        ]
        bias = None if self._cross_bias is None else self._cross_bias[first:last]
        part = FastDecoder.__new__(FastDecoder)
        part._start(self.weights, cross, bias, min(last, self._num_encoder_rows) - first, 1, 1)
        return part

    # -- computation --------------------------------------------------------------------------------------

    def _step(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        begin, end = self.length, self.length + ids.shape[1]
        self._reserve(end)
        buffers = self._buffers_of(ids.shape[1], end)
        if end == begin + 1:
            first = self._zero - begin
            bias = self._bias[:, :, first : first + buffers.span]
        else:
            bias = self._bias_at(torch.arange(begin, end, device=ids.device), buffers.span)
        if segments is not None:
            other = bias.new_ones(end, buffers.span, dtype=torch.bool)
            other[:, :end] = segments[:, None] != segments
            bias = bias.masked_fill(other, -torch.inf)
        self.length = end
        return self._layers(ids, buffers, bias, self._cache[:, :, begin:end].unbind(0), None)

    def _layers(
        self,
        ids: Tensor,
        to: Buffers,
        bias: Tensor,
        caches: tuple[Tensor, ...],
        positions: Tensor | None,
    ) -> Tensor:
        """Return the logits [B, n, V] of ids [B, n].

        `bias` [H, n, K] is of the new ids' own attention. `caches` are, for each layer, the places [2, n, B, I] of
        the new keys and values; with `positions` [n], the whole cache, in which those are their places.
        """
        weights = self.weights
        activation, gated, x, normed = weights.activation, weights.gated, to.stream, to.normed
        x.copy_(weights.embedding.index_select(0, ids.reshape(-1)))
        for layer, cache, own, cross in zip(weights.layers, caches, to.cached, self._cross, strict=True):
            layer.qkv.multiply(normed(layer.self_norm), to.qkv)
            if positions is None:
                cache.copy_(to.new_keys_and_values)
            else:
                cache.index_copy_(1, positions, to.new_keys_and_values)
            layer.self_out.add_product(to.attend(*own, bias), x)
            layer.cross_q.multiply(normed(layer.cross_norm), to.cross_q)
            layer.cross_out.add_product(to.cross_attend(*cross, self._cross_bias), x)
            layer.wi.multiply(normed(layer.ff_norm), to.inner)
            inner = activation(to.gate)
            layer.wo.add_product(inner.mul_(to.linear) if gated else inner, x)
        logits = torch.empty(len(x), weights.vocab_size, dtype=weights.dtype, device=x.device)
        self.final = normed(weights.final_norm)
        weights.head.multiply(self.final, logits)
        return logits.view(*ids.shape, -1)

    def _bias_at(self, positions: Tensor, span: int) -> Tensor:
        """Return the bias [H, n, K] of queries at `positions` [n] and keys at the first K positions."""
        index = self._zero - positions[:, None] + torch.arange(span, device=positions.device)
        return self._bias[:, 0].index_select(1, index.view(-1)).view(-1, *index.shape)

    # -- caches -------------------------------------------------------------------------------------------

    def _reserve(self, length: int) -> None:
        """Make room for `length` ids, and for at least twice as many as before if that needs more memory."""
        capacity = self._cache.shape[2]
        if length <= capacity:
            return
        weights = self.weights
        capacity = -(-max(length, 2 * capacity) // SPAN) * SPAN
        rows, inner = self._num_encoder_rows * self.copies, weights.num_heads * weights.d_kv
        cache = weights.embedding.new_zeros(
            len(weights.layers), 2, capacity, rows, inner, dtype=weights.dtype
        )
        cache[:, :, : self.length] = self._cache[:, :, : self.length]
        self._cache = cache
        # From the largest distance down to zero at `_zero`, then minus infinity for the positions still to come.
        self._zero = capacity - 1
        distance = torch.arange(self._zero, -1, -1, device=cache.device).clamp_(max=len(weights.bias) - 1)
        past = weights.bias[distance].t()  # [H, T]
        self._bias = torch.cat([past, torch.full_like(past, -torch.inf)], dim=1)[:, None]  # [H, 1, 2 T]
        self._buffers.clear()

    def _buffers_of(self, num_new: int, end: int) -> Buffers:
        """Return the buffers for `num_new` ids in each row, the last at position `end` - 1."""
        buffers = self._buffers.get(num_new)
        if buffers is None or not end <= buffers.span < end + SPAN:
            span = -(-end // SPAN) * SPAN
            num_states = self._cross[0][0].shape[2]
            buffers = Buffers(self.weights, self._cache, self._num_encoder_rows, num_new, span, num_states)
            self._buffers[num_new] = buffers
        return buffers


def _cross_keys(weights: DecoderWeights, kv: Matrix, states: Tensor) -> KeysAndValues:
    """Return the keys [R H, d, S] and values [R H, S, d] of the encoder's states [R, S, D]."""
    rows, length = states.shape[:2]
    heads, width = weights.num_heads, weights.d_kv
    out = torch.empty(rows * length, 2 * heads * width, dtype=weights.dtype, device=states.device)
    kv.multiply(states.flatten(0, 1).to(weights.dtype), out)
    keys, values = out.view(rows, length, 2, heads, width).unbind(2)
    return (
        keys.permute(0, 2, 3, 1).reshape(rows * heads, width, length),
        values.transpose(1, 2).reshape(rows * heads, length, width),
    )
