"""Valid UTF-8 by construction: a rule on logits that lets a sequence go on as UTF-8 alone, in whole characters.

Between characters, a row may go on with the first byte of a character or end; inside one, with the bytes that may
follow (Unicode 16, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF). Near the longest length a
character that would not fit is not begun: where the most probable id would begin one, the end of sequence takes its
place. So a row is cut between characters, and a greedy one has every whole character that it would have without a
limit.

Off for span filling: removed spans begin and end inside characters, and their sentinels are bytes from 0xF5 on.

Letters in shapes: N rows of logits, V the vocabulary, 8 states.
"""

from functools import cache

import torch
from torch import Tensor
from transformers import LogitsProcessor

from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID

BETWEEN = 0
"""The state between characters; another state is the kind of the bytes that must follow."""
MAX_BYTES = 4
"""Bytes of the longest character."""
CONTINUATION = range(0x80, 0xC0)

_FOLLOWERS: tuple[tuple[range, int], ...] = (
    (CONTINUATION, BETWEEN),  # state 1: the last byte
    (CONTINUATION, 1),  # state 2: the last but one
    (CONTINUATION, 2),  # state 3: the second of four
    (range(0xA0, 0xC0), 1),  # state 4, after 0xE0
    (range(0x80, 0xA0), 1),  # state 5, after 0xED
    (range(0x90, 0xC0), 2),  # state 6, after 0xF0
    (range(0x80, 0x90), 2),  # state 7, after 0xF4
)
"""Of each state from 1 on: the bytes that may follow, and the state after them."""
_FIRST: tuple[tuple[range, int, int], ...] = (
    (range(0x80), BETWEEN, 1),
    (range(0xC2, 0xE0), 1, 2),
    (range(0xE0, 0xF0), 2, 3),
    (range(0xE0, 0xE1), 4, 3),
    (range(0xED, 0xEE), 5, 3),
    (range(0xF0, 0xF5), 3, 4),
    (range(0xF0, 0xF1), 6, 4),
    (range(0xF4, 0xF5), 7, 4),
)
"""First bytes, the state after them, and the length of their characters; a later entry replaces an earlier one."""
NUM_STATES = 1 + len(_FOLLOWERS)


class Utf8Rule:
    """The rule's tables for one vocabulary, on one device."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        following = torch.zeros(NUM_STATES, vocab_size, dtype=torch.long)
        allowed = torch.zeros(MAX_BYTES, NUM_STATES, vocab_size, dtype=torch.bool)
        allowed[:, BETWEEN, EOS_ID] = True
        for bytes_, state, length in _FIRST:
            ids = slice(bytes_.start + BYTE_OFFSET, bytes_.stop + BYTE_OFFSET)
            following[BETWEEN, ids] = state
            allowed[length - 1 :, BETWEEN, ids] = True
        begins = allowed[-1, BETWEEN] & ~allowed[:, BETWEEN]  # [4, V]
        for state, (bytes_, then) in enumerate(_FOLLOWERS, 1):
            ids = slice(bytes_.start + BYTE_OFFSET, bytes_.stop + BYTE_OFFSET)
            following[state, ids] = then
            allowed[:, state, ids] = True
        too_long = torch.zeros_like(allowed)
        too_long[:, BETWEEN] = begins
        lowest = torch.tensor(-torch.inf)
        self.following = following.to(device)
        """The state [8, V] after an id; `BETWEEN` after one that is not allowed."""
        self._bias = torch.where(allowed, 0.0, lowest).to(device)  # [4, 8, V] by ids left, 1 to 4 or more
        self._too_long = torch.where(too_long, 0.0, lowest).to(device)
        self._ids = [frozenset(row.nonzero()[:, 0].tolist()) for row in allowed[-1]]
        self._following: list[list[int]] = following.tolist()

    def mask(self, logits: Tensor, states: Tensor, left: int | Tensor) -> Tensor:
        """Return logits [N, V], minus infinity at ids that may not follow, for rows in `states` [N].

        `left`, an int or [N], is how many ids may still be written, this one included.
        """
        number = left - 1 if isinstance(left, int) else (left - 1).clamp(max=MAX_BYTES - 1)
        if isinstance(number, int) and number >= MAX_BYTES - 1:
            return logits + self._bias[-1].index_select(0, states).to(logits.dtype)
        masked = logits + self._bias[number, states].to(logits.dtype)
        too_long = (logits + self._too_long[number, states].to(logits.dtype)).amax(-1)
        masked[:, EOS_ID] = torch.maximum(masked[:, EOS_ID], too_long)
        return masked

    def follow(self, state: int, id_: int, left: int) -> int | None:
        """Return the state after an id; None if it may not stand there, or if fewer than 4 ids are `left`."""
        return self._following[state][id_] if left >= MAX_BYTES and id_ in self._ids[state] else None


@cache
def utf8_rule(vocab_size: int, device: torch.device) -> Utf8Rule:
    """Return the rule; its tables are made once."""
    with torch.inference_mode(False):
        return Utf8Rule(vocab_size, device)


class RuledRows:
    """The states of rows that are written one id at a time, at most `max_length` each."""

    def __init__(self, num_rows: int, max_length: int, device: torch.device) -> None:
        self._states = torch.full((num_rows,), BETWEEN, device=device)
        self._left = max_length

    def mask(self, logits: Tensor) -> Tensor:
        """Return the logits [N, V] of each row's next id, minus infinity at ids that may not follow."""
        rule = utf8_rule(logits.shape[-1], logits.device)
        self._following, self._vocab_size = rule.following.view(-1), logits.shape[-1]
        return rule.mask(logits, self._states, self._left)

    def advance(self, ids: Tensor) -> None:
        """Take note of the chosen ids [N]."""
        self._states = self._following.index_select(0, self._states * self._vocab_size + ids)
        self._left -= 1

    def reorder(self, rows: Tensor) -> None:
        """Let row n go on as row `rows[n]`; called before `advance`."""
        self._states = self._states[rows]


class Utf8LogitsProcessor(LogitsProcessor):
    """The rule for transformers' `generate`; `max_length` counts the start id."""

    def __init__(self, max_length: int) -> None:
        self._max_length = max_length

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, input_ids: Tensor, scores: Tensor
    ) -> Tensor:
        """Return scores [N, V] for rows of ids [N, T]; their last 3 ids tell where in a character they are."""
        rule = utf8_rule(scores.shape[-1], scores.device)
        states = torch.full((len(input_ids),), BETWEEN, device=scores.device)
        for ids in input_ids[:, 1 - MAX_BYTES :].unbind(1):
            states = rule.following[states, ids]
        return rule.mask(scores, states, max(1, self._max_length - input_ids.shape[1]))
