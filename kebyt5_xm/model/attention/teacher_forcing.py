"""The patterns of training: padded, packed or full rows, and slots without bias.

Letters in shapes: B rows, S encoder positions, T decoder positions, D d_model.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5ForConditionalGeneration

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.model.attention.interface import Patterns
from kebyt5_xm.model.attention.pattern import Pattern
from kebyt5_xm.model.attention.spans import Span, set_spans

Extents = NDArray[np.int64] | None
"""`Inputs.extents`: the segments on the host, if known there."""


def encoder_patterns(
    mask: Tensor | None,
    packing: Packing | None,
    slots: Tensor | None,
    extents: Extents,
    scores: Tensor | None = None,
) -> Patterns:
    """Return the patterns of the encoder.

    `mask` [B, S] marks valid positions, None for all; `packing` takes its place. At `slots` [B, S] there is no bias.
    `scores` [B, S] are added to the attention scores of every query.
    """
    segments = packing.segments if packing is not None else None if mask is None else mask.long()
    own = Pattern(
        query_segments=segments,
        key_segments=segments,
        key_scores=scores,
        query_slots=slots,
        key_slots=slots,
    )
    if extents is not None:
        set_spans(own, (Span(row, start, stop, start, stop) for row, start, stop, _, _ in extents.tolist()))
    return Patterns(own)


def decode(
    backbone: T5ForConditionalGeneration,
    states: Tensor,
    decoder_input_ids: Tensor,
    mask: Tensor | None,
    packing: Packing | None,
    extents: Extents,
    scores: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the logits [B, T, V] and the decoder's final states [B, T, D].

    `states` [B, S, D] are the encoder's, with its mask or packing. `scores` [B, S] are added to the attention scores
    of every query.
    """
    examples = [] if extents is None else extents.tolist()
    if packing is None:
        own = Pattern(causal=True)
        cross = Pattern(key_segments=None if mask is None else mask.long(), key_scores=scores)
        length = decoder_input_ids.shape[1]
        set_spans(cross, (Span(row, 0, length, start, stop) for row, start, stop, _, _ in examples))
    else:
        segments = packing.target_segments
        own = Pattern(causal=True, query_segments=segments, key_segments=segments)
        segments = packing.cross_segments
        cross = Pattern(query_segments=segments, key_segments=packing.segments, key_scores=scores)
        set_spans(own, (Span(row, start, stop, start, stop) for row, _, _, start, stop in examples))
        set_spans(cross, (Span(row, start, stop, first, last) for row, first, last, start, stop in examples))
    output = backbone.decoder(
        input_ids=decoder_input_ids,
        encoder_hidden_states=states,
        use_cache=False,
        patterns=Patterns(own, cross),
    )
    return backbone.lm_head(output.last_hidden_state), output.last_hidden_state
