"""The patterns of training: padded, packed or full rows, and slots without bias.

Letters in shapes: B rows, S encoder positions, T decoder positions, D d_model.
"""

from torch import Tensor
from transformers import T5ForConditionalGeneration

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.model.attention.interface import Patterns
from kebyt5_xm.model.attention.pattern import Pattern


def encoder_patterns(mask: Tensor | None, packing: Packing | None, slots: Tensor | None) -> Patterns:
    """Return the patterns of the encoder.

    `mask` [B, S] marks valid positions, None for all; `packing` takes its place. At `slots` [B, S] there is no bias.
    """
    segments = packing.segments if packing is not None else None if mask is None else mask.long()
    return Patterns(
        Pattern(query_segments=segments, key_segments=segments, query_slots=slots, key_slots=slots)
    )


def decode(
    backbone: T5ForConditionalGeneration,
    states: Tensor,
    decoder_input_ids: Tensor,
    mask: Tensor | None,
    packing: Packing | None,
) -> Tensor:
    """Return the logits [B, T, V] for the encoder's `states` [B, S, D]; `mask` and `packing` are the encoder's."""
    if packing is None:
        own = Pattern(causal=True)
        cross = Pattern(key_segments=None if mask is None else mask.long())
    else:
        segments = packing.target_segments
        own = Pattern(causal=True, query_segments=segments, key_segments=segments)
        cross = Pattern(query_segments=packing.cross_segments, key_segments=packing.segments)
    output = backbone.decoder(
        input_ids=decoder_input_ids,
        encoder_hidden_states=states,
        use_cache=False,
        patterns=Patterns(own, cross),
    )
    return backbone.lm_head(output.last_hidden_state)
