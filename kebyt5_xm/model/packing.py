"""Decoding packed rows (`kebyt5_xm.data.inputs.Packing`), and which attention may.

Shape suffixes: B rows, S encoder positions, T decoder positions.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from kebyt5_xm.data.inputs import Packing
from kebyt5_xm.errors import UserError

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def decode(
    backbone: "T5ForConditionalGeneration", states: Tensor, decoder_input_ids: Tensor, packing: Packing
) -> Tensor:
    """Return the logits [B, T, V] for the encoder's `states` [B, S, D] of packed rows."""
    output = backbone.decoder(
        input_ids=decoder_input_ids,
        attention_mask=packing.decoder_mask(),
        encoder_hidden_states=states,
        encoder_attention_mask=packing.cross_mask(),
        use_cache=False,
    )
    return backbone.lm_head(output.last_hidden_state)


def check_attention(implementation: str | None) -> None:
    """Raise `UserError` for an attention that would let examples of one row see each other."""
    if implementation == "eager":  # it adds a boolean mask to the scores instead of hiding by it
        raise UserError(
            "packing needs masks that eager attention does not apply; set model.backbone.attention: sdpa"
        )
