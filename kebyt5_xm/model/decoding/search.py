"""Greedy decoding and sampling, on ranks that stop together.

Letters in shapes: B decoder rows, T ids of the longest row, V the vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

CHECK_EVERY = 8
"""Ids between two checks whether all rows are done, where a check waits for a device or for the other ranks."""

Choose = Callable[[Tensor], Tensor]
"""Takes logits [B, V] and returns the next ids [B]."""


def greedy_decode(
    model: CrossModalNetwork,
    states: Tensor,
    attention_mask: Tensor | None,
    max_length: int,
    done: Tensor | None = None,
    everywhere: Callable[[bool], bool] = bool,
) -> Tensor:
    """Return the most probable ids [B, T], as `decode` does.

    Args:
        states: the encoder's, [B, S, D]; `attention_mask` [B, S] marks the valid ones.
        max_length: the largest T.
        done: [B] bool, True for rows to skip.
        everywhere: takes this rank's truth value; returns whether it is true on every rank.
    """
    decoder = open_decoder(model, states, attention_mask, capacity=max_length)
    finished = torch.zeros(len(states), dtype=torch.bool, device=states.device) if done is None else done
    return decode(decoder, finished, max_length, choose_best, everywhere)


def choose_best(logits: Tensor) -> Tensor:
    """Return the most probable ids [B]."""
    return logits.argmax(-1)


def decode(
    decoder: Decoder,
    finished: Tensor,
    max_length: int,
    choose: Choose,
    everywhere: Callable[[bool], bool] = bool,
) -> Tensor:
    """Return the chosen ids [B, T] without the start id, PAD after the end of sequence and in rows `finished` [B].

    T is the length of the longest row, at most `max_length`. A rank whose rows are finished goes on until they are
    finished `everywhere`, so all ranks take as many steps.
    """
    check_every = CHECK_EVERY if decoder.device.type != "cpu" or everywhere is not bool else 1
    skipped = finished.to(decoder.device)
    unfinished = {row for row, is_finished in enumerate(finished.tolist()) if not is_finished}
    ids = torch.full((len(finished), 1), PAD_ID, device=decoder.device)  # T5 starts with the pad id
    columns: list[Tensor] = []
    with torch.no_grad():
        for length in range(max_length):
            if length % check_every == 0:
                for column in columns[-check_every:]:
                    unfinished -= {row for row, id_ in enumerate(column[:, 0].tolist()) if id_ == EOS_ID}
                if everywhere(not unfinished):
                    break
            ids = choose(decoder.step(ids)[:, -1])[:, None]
            columns.append(ids)
    return _cut(torch.cat(columns, dim=1) if columns else ids[:, :0], skipped)


def _cut(rows: Tensor, skipped: Tensor) -> Tensor:
    """Return rows [B, T] up to the longest one's end of sequence, PAD behind every row's own."""
    ended = (rows == EOS_ID).cumsum(1) - (rows == EOS_ID).long() > 0  # after the first end of sequence
    ended |= skipped[:, None]
    return rows.masked_fill(ended, PAD_ID)[:, : int((~ended).sum(1).max()) if len(rows) else 0]
