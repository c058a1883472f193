"""Beam search with the rules of transformers' `generate`.

In each step, the 2 K best continuations of a row's K beams are found. The best K of them that do not end go on; those
of the first K that end compete for the K places of finished ones by their score, the log-probability divided by
length ** length_penalty. A row is settled when no running beam can beat its worst finished one.

Letters in shapes: R encoder rows, K beams of each, C = 2 K continuations, T ids, V the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kebyt5_xm.model.decoding.decoder import Decoder
from kebyt5_xm.model.decoding.utf8 import RuledRows
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

IMPOSSIBLE = -1e9
"""The score of a beam that is none, as in transformers; a log-probability never gets there."""


@dataclass(frozen=True)
class BeamSearch:
    """A beam search.

    Args:
        num_beams: K, which is also the number of `copies` of the decoder.
        length_penalty: above 0 favours long answers.
        early_stopping: True ends a row at K finished beams; False when the best running beam, at its length, scores
            no better than the worst finished one; "never" when it cannot at any length up to the longest.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False

    @torch.no_grad()
    def __call__(
        self,
        decoder: Decoder,
        rows: int,
        max_length: int,
        num_best: int = 1,
        everywhere: Callable[[bool], bool] = bool,
        rule: RuledRows | None = None,
    ) -> Tensor:
        """Return the best ids [R x num_best, T] of each row side by side, PAD after the end of sequence.

        T is the length of the longest, at most `max_length`. All ranks take as many steps, as in `search.decode`.
        `rule`, of R x K rows, takes ids out; scores stay the model's own log-probabilities.
        """
        beams, device = self.num_beams, decoder.device
        first_rows = torch.arange(rows, device=device)[:, None] * beams
        running = torch.full((rows, beams, max_length), PAD_ID, device=device)
        scores = torch.full((rows, beams), IMPOSSIBLE, device=device)
        scores[:, 0] = 0  # the beams are equal at the start: one is continued
        best, best_scores = running.clone(), torch.full_like(scores, IMPOSSIBLE)
        finished = torch.zeros(rows, beams, dtype=torch.bool, device=device)
        open_rows = torch.ones(rows, 1, dtype=torch.bool, device=device)  # whose best may still change
        ids = torch.full((rows * beams, 1), PAD_ID, device=device)  # T5 starts with the pad id
        length = 0
        for length in range(1, max_length + 1):
            log_probabilities = decoder.step(ids)[:, -1].float().log_softmax(-1)
            if rule is not None:
                log_probabilities = rule.mask(log_probabilities)
            vocab_size = log_probabilities.shape[-1]
            total = log_probabilities.view(rows, beams, vocab_size) + scores[:, :, None]
            total, index = total.flatten(1).topk(2 * beams)  # [R, C]
            origin, new = index // vocab_size, index % vocab_size
            continued = _take(running, origin)
            continued[:, :, length - 1] = new
            ends = new == EOS_ID if length < max_length else torch.ones_like(new, dtype=torch.bool)

            settled = ~open_rows | (finished.all(1, keepdim=True) & (self.early_stopping is True))
            ending = ends.clone()
            ending[:, beams:] = False
            scored = total / length**self.length_penalty + IMPOSSIBLE * settled.float()
            scored = scored + IMPOSSIBLE * (~ending).float()
            merged = torch.cat([best_scores, scored], dim=1)
            best_scores, chosen = merged.topk(beams)
            best = _take(torch.cat([best, continued], dim=1), chosen)
            finished = torch.cat([finished, ending], dim=1).gather(1, chosen)

            scores, chosen = (total + IMPOSSIBLE * ends.float()).topk(beams)
            running = _take(continued, chosen)
            longest = max_length if self.early_stopping == "never" and self.length_penalty > 0 else length
            reachable = scores[:, :1] / longest**self.length_penalty
            worst = best_scores.min(1, keepdim=True).values.where(
                finished, torch.tensor(IMPOSSIBLE, device=device)
            )
            open_rows = open_rows & (reachable > worst).any(1, keepdim=True)
            stops = not bool(open_rows.any()) or (self.early_stopping is True and bool(finished.all()))
            if everywhere(stops) or length == max_length:
                break
            continued_rows = (first_rows + origin.gather(1, chosen)).flatten()
            decoder.reorder(continued_rows)
            ids = new.gather(1, chosen).view(-1, 1)
            if rule is not None:
                rule.reorder(continued_rows)
                rule.advance(ids[:, 0])
        answers = best[:, :num_best].flatten(0, 1)
        lengths = ((answers == EOS_ID).cumsum(1) == 0).sum(1) + 1
        return answers[:, : min(int(lengths.max()), length)]


def _take(beams: Tensor, index: Tensor) -> Tensor:
    """Return the sequences [R, N, T] of `beams` [R, M, T] at `index` [R, N]."""
    return beams.gather(1, index[:, :, None].expand(-1, -1, beams.shape[2]))
