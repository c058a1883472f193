"""The encoder that transformers' `generate` calls once for an input."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.inputs import MediaGroup
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.splice import slot_positions

if TYPE_CHECKING:
    from kebyt5_xm.model.network import CrossModalNetwork


class CrossModalEncoder(nn.Module):
    """The encoder that `generate` calls once: bytes and media in, the T5 encoder's states out."""

    main_input_name = "input_ids"

    def __init__(self, owner: "CrossModalNetwork") -> None:
        super().__init__()
        self._owner = [owner]  # in a list, so that the model is not a child of its own child

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        media: list[MediaGroup] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Return the states [B, S, D]; see `CrossModalNetwork.forward`."""
        media = [group.to(input_ids.device) for group in media or ()]  # a pipeline moves tensors alone
        slots = slot_positions(input_ids.shape, media, input_ids.device)
        if attention_mask is not None and not attention_mask[slots].all():
            raise UserError(
                "the attention_mask masks slots: their id is PAD, but they hold a medium; pass the processor's mask: "
                "model.generate(**processor(segments))"
            )
        return self._owner[0].encode(input_ids, attention_mask, media)
