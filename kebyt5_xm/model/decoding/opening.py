"""From a model and its inputs to a decoder."""

import torch
from torch import Tensor

from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.model.decoding.decoder import Decoder, ModuleDecoder
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.graph import MIN_IDS, GraphDecoder, capture_cuda
from kebyt5_xm.model.decoding.int8 import Int8Decoder
from kebyt5_xm.model.decoding.weights import read_weights
from kebyt5_xm.model.network import CrossModalNetwork, teacher_force


@torch.no_grad()
def encode(model: CrossModalNetwork, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return the encoder's states [B, S, D] and their mask [B, S], None if there is no padding.

    Calls the whole model, since sharded weights need that; it costs one decoder position more.
    """
    output = teacher_force(
        model, inputs, inputs.input_ids[:, :1]
    )  # any label: the decoder sees the start id alone
    return output.states, output.mask


def open_decoder(
    model: CrossModalNetwork,
    states: Tensor,
    attention_mask: Tensor | None,
    copies: int = 1,
    capacity: int = 1,
) -> Decoder:
    """Return a decoder for the encoder's states [R, S, D]; `attention_mask` [R, S] marks the valid ones.

    It reads the weights as they are now: open another after a training step. The fast decoder is taken where it can
    read them all, which is the same on all ranks; else every step is one call of the whole model.

    Args:
        copies: decoder rows of each encoder row, side by side.
        capacity: ids that each row will probably hold.
    """
    decoder = model.backbone.decoder
    weights = decoder.weights if isinstance(decoder, Int8Decoder) else read_weights(model.backbone)
    if weights is None:
        return ModuleDecoder(model, states, attention_mask, copies)
    if weights.device.type == "cuda" and capacity >= MIN_IDS:
        return GraphDecoder(weights, states, attention_mask, copies, capacity, capture=capture_cuda)
    return FastDecoder(weights, states, attention_mask, copies, capacity)
