"""The model: a T5 backbone and, where configured, the modalities whose vectors enter its byte embeddings."""

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.vocabulary import PAD_ID


class CrossModalT5(nn.Module):
    """An encoder-decoder over bytes. Without modalities it computes exactly what its backbone does."""

    def __init__(self, backbone: T5ForConditionalGeneration) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        encoder_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits [B, T, V] and the encoder's last states [B, S, D].

        Give `input_ids` [B, S], or the `encoder_states` of an earlier call; `attention_mask` [B, S] belongs to
        either. `decoder_input_ids` is [B, T].
        """
        encoded = None if encoder_states is None else BaseModelOutput(encoder_states)  # pyright: ignore
        output = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            encoder_outputs=encoded,
            use_cache=False,
        )
        return output.logits, output.encoder_last_hidden_state

    def shift_right(self, labels: Tensor) -> Tensor:
        """Return the decoder inputs [B, T] of `labels` [B, T]: one step later, behind the start id."""
        shifted = labels.new_full(labels.shape, PAD_ID)  # T5 starts with the pad id
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORE_INDEX, PAD_ID)
        return shifted


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the negative log-likelihood [B, T] of every label in nats, fp32, zero where there is none."""
    return F.cross_entropy(
        logits.float().transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
    )
