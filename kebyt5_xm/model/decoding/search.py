"""Greedy decoding and sampling, on ranks that stop together.

Letters in shapes: B decoder rows, T ids of the longest row, V the vocabulary.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.decoding.utf8 import RuledRows
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
    unfinished = {row for row, is_finished in enumerate(finished.tolist()) if not is_finished}
    rows = len(finished)
    blocks = list(decode_blocks(decoder, rows, unfinished, max_length, choose, None, everywhere))
    ids = (
        torch.cat(blocks, dim=1) if blocks else torch.empty(rows, 0, dtype=torch.long, device=decoder.device)
    )
    return cut(ids, finished.to(decoder.device))


@torch.no_grad()
def decode_blocks(
    decoder: Decoder,
    num_rows: int,
    unfinished: set[int],
    max_length: int,
    choose: Choose,
    rule: RuledRows | None = None,
    everywhere: Callable[[bool], bool] = bool,
) -> Iterator[Tensor]:
    """Yield the chosen ids as they are written, [B, 1] or, where a check waits, up to [B, `CHECK_EVERY`].

    Rows whose end of sequence was written leave the set `unfinished`, whose owner may take out others between two
    blocks; ids of a row that is not in it are without meaning. The last block is the one after which it is empty.
    """
    check_every = CHECK_EVERY if decoder.device.type != "cpu" or everywhere is not bool else 1
    ids = torch.full((num_rows, 1), PAD_ID, device=decoder.device)  # T5 starts with the pad id
    columns: list[Tensor] = []
    for length in range(max_length):
        if length % check_every == 0 and everywhere(not unfinished):
            return
        logits = decoder.step(ids)[:, -1]
        chosen = choose(logits if rule is None else rule.mask(logits))
        if rule is not None:
            rule.advance(chosen)
        ids = chosen[:, None]
        columns.append(ids)
        if len(columns) == check_every or length + 1 == max_length:
            block = torch.cat(columns, dim=1)
            columns.clear()
            ended = (block == EOS_ID).any(1).tolist()
            unfinished -= {row for row, has_ended in enumerate(ended) if has_ended}
            yield block


def cut(rows: Tensor, skipped: Tensor | None = None) -> Tensor:
    """Return rows [B, T] up to the longest one's end of sequence, PAD behind every row's own and in `skipped` [B]."""
    ended = (rows == EOS_ID).cumsum(1) - (rows == EOS_ID).long() > 0  # after the first end of sequence
    if skipped is not None:
        ended |= skipped[:, None]
    return rows.masked_fill(ended, PAD_ID)[:, : int((~ended).sum(1).max()) if len(rows) else 0]
