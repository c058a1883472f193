"""What one call of the model returns in training: in transformers' form, and in the form that losses take.

Letters in shapes: B rows, S encoder positions, K encoder states, T decoder positions, V the vocabulary, D the model's
width, C draft heads.
"""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor
from transformers.modeling_outputs import Seq2SeqLMOutput


@dataclass
class TeacherForced(Seq2SeqLMOutput):
    """transformers' output, with what heads and a delete gate add to it; each is None without them.

    Attributes:
        draft_logits: [C, B, T, V] of draft heads.
        ctc_logits: modality -> those of its CTC head.
        encoder_mask: [B, K] the mask of a gate's states, as `kebyt5_xm.model.encoder_mask` says.
        gate: [B, S] the values of `kebyt5_xm.model.delete_gate.GatedStates`.
    """

    draft_logits: Tensor | None = None
    ctc_logits: dict[str, Tensor] | None = None
    encoder_mask: Tensor | None = None
    gate: Tensor | None = None


class Outputs(NamedTuple):
    """Outputs of one call: logits [B, T, V], the encoder's states [B, K, D] and their mask [B, K].

    `draft_logits` [C, B, T, V] are those of C draft heads, in training mode; `ctc_logits` are those of CTC heads.
    `gate` [B, S] are a delete gate's values at the input's positions, `GatedStates.gate`. Without a gate, or after
    soft deletion, K is S.
    """

    logits: Tensor
    states: Tensor
    mask: Tensor | None
    draft_logits: Tensor | None = None
    ctc_logits: dict[str, Tensor] | None = None
    gate: Tensor | None = None

    @classmethod
    def of(cls, output: Seq2SeqLMOutput, mask: Tensor | None) -> "Outputs":
        """Return the outputs of a call whose input had `mask` [B, S], None for all positions."""
        logits, states = output.logits, output.encoder_last_hidden_state
        assert logits is not None
        assert states is not None
        if not isinstance(output, TeacherForced):  # eager attention has transformers' own
            return cls(logits, states, mask)
        mask = mask if output.gate is None else output.encoder_mask
        return cls(logits, states, mask, output.draft_logits, output.ctc_logits, output.gate)
