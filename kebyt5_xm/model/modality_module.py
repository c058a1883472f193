"""The weights of one modality: its encoder and the adapter into the byte embeddings.

Letters in shapes: N media, M slots of one (padded), D d_model, F features of W numbers, or a grid of R rows and C
columns of them.
"""

import torch
from torch import Tensor, nn

from kebyt5_xm.adapters import Adapter
from kebyt5_xm.encoder import Encoded, Encoder, length_mask
from kebyt5_xm.model.slot_dropout import SlotDropout


class ModalityModule(nn.Module):
    """The weights of one modality."""

    encoder_changed: bool = False
    """True if LoRA or a loaded file gave the encoder other weights than its constructor does."""
    dropout: SlotDropout | None = None
    """Acts in training mode; set by training."""

    def __init__(self, encoder: Encoder, adapter: Adapter) -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter

    def forward(self, prepared: Tensor, lengths: Tensor, encoded: bool = False) -> tuple[Tensor, Tensor]:
        """Return the vectors [N, M, D] of N media and their mask [N, M]; valid vectors (mask True) come first.

        `prepared` is the encoder's input. With `encoded` it is features from a cache: [N, F, W], the first `lengths`
        valid, or a grid [N, R, C, W].
        """
        if not encoded:
            return self._adapt(self.encoder(prepared, lengths))
        if prepared.ndim == 4:
            return self._adapt(Encoded.full(prepared.flatten(1, 2), (prepared.shape[1], prepared.shape[2])))
        return self._adapt(Encoded(prepared, length_mask(lengths, prepared.shape[1])))

    def drop(self, vectors: Tensor) -> Tensor:
        """Return vectors [N, M, D] for the slots: in training mode, with some replaced by zeros."""
        return vectors if self.dropout is None or not self.training else self.dropout(vectors)

    def _adapt(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        return self.adapter(encoded.features, encoded.mask, encoded.grid)

    def dummy(self, device: torch.device) -> Tensor:
        """Return 0 x the output for the dummy input: a rank without input gives every weight a zero gradient by
        it.
        """
        prepared, lengths = self.encoder.dummy()
        # Through __call__: ZeRO-3 needs the same sequence of module calls on all ranks.
        vectors, _ = self(prepared.to(device), lengths.to(device))
        return vectors.sum() * 0.0
