"""Greedy decoding of one row by drafts: guessed ids, all verified in one pass of the decoder.

A guess counts only if it is the most probable id after those before it, so the ids are greedy's whatever is guessed
(Stern et al. 2018, arXiv 1811.03115). A pass over several ids adds in another order than one over a single id: where
the two best logits differ in the last bits alone, it may take the other one.

Letters in shapes: n ids of a pass, C draft heads, D the model's width, V the vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.int8 import Int8Decoder
from kebyt5_xm.model.decoding.utf8 import BETWEEN, Utf8Rule
from kebyt5_xm.model.decoding.weights import DecoderWeights
from kebyt5_xm.model.draft_heads import DraftHeadsModule
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

MIN_MATCH = 5
"""Ids that must be equal before a continuation is guessed; a Korean syllable has three."""
MAX_MATCH = 12
"""Most ids that are compared."""
SHORT, LONG = 7, 15
"""Lengths of guesses. With the id before them that makes passes of 8 and 16 ids, so buffers are made for these."""
MAX_PAUSE = 64
"""Most ids written one by one after guesses that did not pay."""
MARGIN = 0.5
"""Heads are tried as if they had been right so much oftener than they must be; a few wrong guesses use that up."""
DENSE_COST, INT8_COST = 2.5, 0.7
"""What a pass over 5 to 16 ids takes beyond a pass over one, in passes over one (docs/performance.md)."""


class Drafter(Protocol):
    """Guesses the ids that a model writes next."""

    def propose(self, written: Sequence[int], state: Tensor | None) -> list[int]:
        """Return guesses for the ids after `written`; an empty list for none.

        `state` [D] is the decoder's at the last of them (`FastDecoder.final`), None before the first pass.
        """
        ...

    def observe(self, num_right: int) -> None:
        """Take note that so many of the last guesses were right, counted up to the first wrong one."""
        ...


class LookupDrafter:
    """Guesses that the answer goes on as the same ids did before: in the input, else in the answer itself.

    Args:
        source: the input's ids.
        cost: what a pass over several ids takes beyond a pass over one, in passes over one.
    """

    def __init__(self, source: Sequence[int], cost: float) -> None:
        self._source, self._written = _to_text(source), ""
        self._cost = cost
        self._position = 0  # in the source, where the last match ended
        self._length, self._num_guessed = SHORT, 0
        self._pause, self._next_pause = 0, 1

    def propose(self, written: Sequence[int], state: Tensor | None) -> list[int]:
        self._written += _to_text(written[len(self._written) :])
        if self._pause:
            self._pause -= 1
            return []
        guess = self._continuation()
        self._num_guessed = len(guess)
        return [ord(letter) for letter in guess] if len(guess) > self._cost else []

    def observe(self, num_right: int) -> None:
        self._length = LONG if num_right >= self._num_guessed else SHORT
        if num_right > self._cost:
            self._next_pause = 1
        else:
            self._pause, self._next_pause = self._next_pause, min(4 * self._next_pause, MAX_PAUSE)

    def _continuation(self) -> str:
        written, length = self._written, self._length
        if len(written) < MIN_MATCH:
            return ""
        last = written[-MIN_MATCH:]
        if last in self._source:
            end = self._longest_match()
            self._position = end
            return self._source[end : end + length].partition(chr(PAD_ID))[0]  # PAD is a slot
        found = written.rfind(last, 0, -1)
        return written[found + MIN_MATCH : found + MIN_MATCH + length] if found >= 0 else ""

    def _longest_match(self) -> int:
        """Return where the source goes on after the longest match, the first one after the match before if any."""
        for size in range(min(MAX_MATCH, len(self._written)), MIN_MATCH - 1, -1):
            last = self._written[-size:]
            found = self._source.find(last, max(0, self._position - size))
            found = self._source.find(last) if found < 0 else found
            if found >= 0:
                return found + size
        raise AssertionError("called without a match")


class HeadsDrafter:
    """Guesses what the draft heads find most probable, each after the guess of the one before.

    Args:
        heads: on the decoder's device.
        weights: those that compute the heads' states.
        cost: as for `LookupDrafter`.
    """

    def __init__(self, heads: DraftHeadsModule, weights: DecoderWeights, cost: float) -> None:
        matrix, gain = heads.weight.detach().float().flatten(0, 1), weights.head_gain
        self._matrix = (matrix if gain is None else matrix * gain).to(weights.dtype)  # [C V, D]
        self._tables = heads.table.detach().to(weights.dtype).unbind()
        self._cost, self._mean = cost, cost + MARGIN
        self._pause, self._next_pause = 0, 8

    def propose(self, written: Sequence[int], state: Tensor | None) -> list[int]:
        if state is None or self._pause:
            self._pause = max(0, self._pause - 1)
            return []
        scores = torch.mv(self._matrix, state).view(len(self._tables), -1)
        last, guess = written[-1], []
        for row, table in zip(scores, self._tables, strict=True):
            last = int((row + table[last]).argmax())
            guess.append(last)
        return guess

    def observe(self, num_right: int) -> None:
        self._mean += (num_right - self._mean) / 8
        if self._mean > self._cost:
            self._next_pause = 8
        else:
            self._mean = self._cost + MARGIN
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, MAX_PAUSE)


def make_drafters(model: CrossModalNetwork, decoder: Decoder, input_ids: Tensor) -> list[Drafter]:
    """Return what drafts for the inputs [R, S] of a new decoder: nothing for more rows than one, or on a GPU.

    There, a captured graph writes one id faster than several, and rows would accept different numbers.
    """
    if (
        type(decoder) is not FastDecoder
        or decoder.device.type != "cpu"
        or len(input_ids) * decoder.copies > 1
    ):
        return []
    cost = INT8_COST if isinstance(model.backbone.decoder, Int8Decoder) else DENSE_COST
    drafters: list[Drafter] = [LookupDrafter(input_ids[0].tolist(), cost)]
    if model.draft_heads is not None and model.draft_heads.count > cost:
        drafters.append(HeadsDrafter(model.draft_heads, decoder.weights, cost))
    return drafters


def draft_decode(
    decoder: FastDecoder, drafters: Sequence[Drafter], max_length: int, rule: Utf8Rule | None = None
) -> Tensor:
    """Return greedy's ids [1, T] of a decoder of one row, without the start id; T is at most `max_length`."""
    return torch.tensor([[id_ for new in draft_blocks(decoder, drafters, max_length, rule) for id_ in new]])


@torch.inference_mode()
def draft_blocks(
    decoder: FastDecoder, drafters: Sequence[Drafter], max_length: int, rule: Utf8Rule | None = None
) -> Iterator[list[int]]:
    """Yield greedy's ids of a decoder of one row as they are written, up to the end of sequence.

    The first drafter that has a guess is taken.
    """
    written: list[int] = []
    last, state, place = PAD_ID, None, BETWEEN  # T5 starts with the pad id
    while len(written) < max_length and last != EOS_ID:
        drafter, guess = None, []
        for drafter in drafters:
            guess = drafter.propose(written, state)[: max_length - len(written) - 1]
            if guess:
                break
        logits = decoder.step(torch.tensor([[last, *guess]]))[0]
        best: list[int] = logits.argmax(-1).tolist()
        new: list[int] = []
        for n, id_ in enumerate(best):
            if rule is not None:
                id_, place = _ruled(rule, place, id_, logits[n], max_length - len(written) - n)
            new.append(id_)
            if id_ == EOS_ID or n == len(guess) or id_ != guess[n]:
                break
        right = len(new) - (len(new) > len(guess) or new[-1] != guess[len(new) - 1])
        if guess and drafter is not None:
            drafter.observe(right)
            decoder.truncate(decoder.length - len(guess) + right)
        written += new
        last, state = written[-1], decoder.final[len(new) - 1]
        yield new


def _ruled(rule: Utf8Rule, state: int, best: int, logits: Tensor, left: int) -> tuple[int, int]:
    """Return the most probable id that may follow in `state`, `best` if it may, and the state after it."""
    following = rule.follow(state, best, left)
    if following is None:
        best = int(rule.mask(logits[None], torch.tensor([state]), left).argmax())
        following = int(rule.following[state, best])
    return best, following


def _to_text(ids: Sequence[int]) -> str:
    """Return a letter for each id: strings are searched fast."""
    return "".join(map(chr, ids))
