"""What decodes: an interface of a few calls, and one implementation of it by calls of the whole model.

Letters in shapes: B decoder rows, n new ids of each, V the vocabulary, S encoder positions, D the model's width,
N decoder positions of packed targets. Each of the R encoder rows has `copies` decoder rows side by side, so B = R x
copies.
"""

from typing import Protocol

import torch
from torch import Tensor
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.decoding.packed import LabelPacking
from kebyt5_xm.model.network import CrossModalNetwork


class Decoder(Protocol):
    """Decodes for fixed encoder states. Ids are given in order from the start id on; earlier ones are remembered."""

    device: torch.device
    """Where its ids and logits are."""
    length: int
    """Number of ids seen in each row."""

    def step(self, ids: Tensor) -> Tensor:
        """Return the logits [B, n, V] after each of the next ids [B, n], fp32 or bf16; valid until the next step."""
        ...

    def truncate(self, length: int) -> None:
        """Forget the ids after the first `length`."""
        ...

    def reorder(self, rows: Tensor) -> None:
        """Let row b continue the ids of row `rows[b]`; `rows` [B] stay within their encoder row."""
        ...

    def packed_logits(self, ids: Tensor, segments: Tensor) -> Tensor:
        """Return logits [R, N, V] of targets side by side: position n sees those before it of equal `segments` [N],
        numbered from 1.

        `ids` [R, N] are the targets, shifted by one within each segment. Needs a decoder without `copies` that has
        seen no ids.
        """
        ...

    def select(self, first: int, last: int) -> "Decoder":
        """Return a decoder of the encoder rows from `first` to before `last`, which has seen no ids."""
        ...


class ModuleDecoder:
    """Calls the whole model once a step, so that sharded weights are gathered as in training."""

    def __init__(
        self, model: CrossModalNetwork, states: Tensor, attention_mask: Tensor | None, copies: int = 1
    ) -> None:
        self.length, self.device = 0, states.device
        self._model = model
        self._given = states, attention_mask
        self._states = states.repeat_interleave(copies, 0)
        self._mask = None if attention_mask is None else attention_mask.repeat_interleave(copies, 0)
        self._cache: EncoderDecoderCache | None = None

    def step(self, ids: Tensor) -> Tensor:
        output = self._model(
            encoder_outputs=BaseModelOutput(self._states),  # pyright: ignore[reportArgumentType]
            attention_mask=self._mask,
            decoder_input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
        )
        assert isinstance(output.past_key_values, EncoderDecoderCache)
        self._cache = output.past_key_values
        self.length += ids.shape[1]
        return output.logits

    def truncate(self, length: int) -> None:
        if length < self.length and self._cache is not None:
            self._cache.crop(length - self.length)
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        if self._cache is not None:
            self._cache.self_attention_cache.reorder_cache(rows)  # pyright: ignore[reportArgumentType]

    def packed_logits(self, ids: Tensor, segments: Tensor) -> Tensor:
        states = self._states
        valid = encoder_mask.split(self._mask)[0]
        valid = torch.ones(states.shape[:2], device=states.device) if valid is None else valid
        return self._model(
            encoder_outputs=BaseModelOutput(states),  # pyright: ignore[reportArgumentType]
            attention_mask=self._mask,
            decoder_input_ids=ids,
            packing=LabelPacking(valid.long(), segments.expand(len(ids), -1)),
        ).logits

    def select(self, first: int, last: int) -> "ModuleDecoder":
        states, mask = self._given
        return ModuleDecoder(self._model, states[first:last], None if mask is None else mask[first:last])
