"""Greedy decoding that works under every strategy.

transformers' `generate` stops on each rank when that rank's rows are done. If weights are sharded, the other ranks
would then wait for ever. Here the ranks stop together, and every id is one call of the whole model, so sharded
weights are gathered as in training.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.model.network import CrossModalNetwork, teacher_force
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

CHECK_EVERY = 8
"""Ids between two checks whether all rows are done: a check waits for the device, and for the other ranks."""


@torch.no_grad()
def encode(model: CrossModalNetwork, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return the encoder's states [B, S, D] and their mask [B, S], None if there is no padding.

    Calls the whole model, since sharded weights need that; it costs one decoder position more.
    """
    output = teacher_force(
        model, inputs, inputs.input_ids[:, :1]
    )  # any label: the decoder sees the start id alone
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
    """Return the generated ids [B, T], T at most `max_length`, without the start id, PAD after the end of sequence.

    Args:
        states: the encoder's, [B, S, D]; `attention_mask` [B, S] marks the valid ones.
        done: [B] bool, True for rows to skip.
        everywhere: takes this rank's truth value; returns whether it is true on every rank.
    """
    device, rows = states.device, len(states)
    finished = torch.zeros(rows, dtype=torch.bool, device=device) if done is None else done.to(device)
    last = torch.full((rows, 1), PAD_ID, dtype=torch.long, device=device)  # T5 starts with the pad id
    generated, cache = [], None
    for length in range(max_length):
        if length % CHECK_EVERY == 0 and everywhere(bool(finished.all())):
            break
        output = model(
            encoder_outputs=BaseModelOutput(states),  # pyright: ignore[reportArgumentType]
            attention_mask=attention_mask,
            decoder_input_ids=last,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        last = output.logits[:, -1:].argmax(-1).masked_fill(finished[:, None], PAD_ID)
        generated.append(last)
        finished = finished | (last[:, 0] == EOS_ID)
    return torch.cat(generated, dim=1) if generated else last[:, :0]
