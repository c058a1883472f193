"""Greedy decoding that runs alike under every strategy.

transformers' `generate` stops on each rank when that rank's rows are done; where weights are sharded, the others
would then wait for it for ever. Here the ranks stop together, and every id is one call of the model itself, so that
sharded weights are gathered as in training.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.model.network import CrossModalNetwork, teacher_force
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

CHECK_EVERY = 8
"""Ids between two looks at whether all rows are done: each look waits for the device, and for the other ranks."""


@torch.no_grad()
def encode(model: CrossModalNetwork, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return the encoder's states [B, S, D] of inputs, and their mask [B, S], None if all count.

    By a call of the whole model, as sharded weights want it; one id of the decoder is what that costs.
    """
    output = teacher_force(model, inputs, inputs.input_ids[:, :1])  # any label: the start id alone goes in
    return output.states, output.mask


@torch.no_grad()
def greedy_decode(
    model: CrossModalNetwork,
    states: Tensor,
    attention_mask: Tensor | None,
    max_length: int,
    done: Tensor | None = None,
    everywhere: Callable[[bool], bool] = bool,
) -> Tensor:
    """Return the written ids [B, T], T at most `max_length`: the start id left out, PAD behind the end of sequence.

    Args:
        states: the encoder's, [B, S, D]; `attention_mask` [B, S] says which count.
        done: [B] rows of which nothing is wanted.
        everywhere: whether what is true here is true on every rank.
    """
    device, rows = states.device, len(states)
    over = torch.zeros(rows, dtype=torch.bool, device=device) if done is None else done.to(device)
    last = torch.full((rows, 1), PAD_ID, dtype=torch.long, device=device)  # T5 starts with the pad id
    written, cache = [], None
    for length in range(max_length):
        if length % CHECK_EVERY == 0 and everywhere(bool(over.all())):
            break
        output = model(
            encoder_outputs=BaseModelOutput(states),  # pyright: ignore[reportArgumentType]
            attention_mask=attention_mask,
            decoder_input_ids=last,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        last = output.logits[:, -1:].argmax(-1).masked_fill(over[:, None], PAD_ID)
        written.append(last)
        over = over | (last[:, 0] == EOS_ID)
    return torch.cat(written, dim=1) if written else last[:, :0]
