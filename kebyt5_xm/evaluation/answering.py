"""A model's answers to the examples of a batch: free text, or one of a source's labels."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from kebyt5_xm.data.batch import collate_inputs
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import encode, greedy_decode
from kebyt5_xm.model.decoding.loops import find_loop
from kebyt5_xm.model.decoding.scoring import score_ids
from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.vocabulary import EOS_ID, decode_bytes


@dataclass(frozen=True)
class Written:
    """A generated answer: its text, with U+FFFD for invalid UTF-8, and the probability of each label, if any.

    `escaped` is the same text with a lone surrogate (surrogateescape) for each invalid byte. `confidence` is the
    geometric mean of the probabilities of its ids, or the probability of the label, from 0 to 1; None if it was not
    measured. `ended` says that the model ended the text itself, before the longest length.
    """

    text: str
    escaped: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    ended: bool = True

    @property
    def valid(self) -> bool:
        """Whether the answer is valid UTF-8."""
        return self.text == self.escaped

    @property
    def repeats(self) -> bool:
        """Whether the answer ends in one phrase over and over (`kebyt5_xm.model.decoding.loops`)."""
        return bool(find_loop(self.escaped.encode("utf-8", "surrogateescape")))


@dataclass
class Answering:
    """How a source's examples are answered.

    Args:
        labels: the closed list of answers, of which the most probable is chosen; None for free text.
        max_length: the longest free text in ids.
        everywhere: returns whether a condition holds on every rank (see `kebyt5_xm.model.decoding`).
        with_confidence: measures the confidence of free texts, by one more pass of the decoder; for one process.
    """

    labels: Sequence[str] | None
    max_length: int
    everywhere: Callable[[bool], bool] = bool
    with_confidence: bool = False

    @torch.no_grad()
    def answers(
        self, model: CrossModalT5, states: Tensor, mask: Tensor | None, wanted: Tensor
    ) -> list[Written]:
        """Return the answers for the encoder's states [B, S, D]; rows not `wanted` [B] get an arbitrary answer."""
        if self.labels is not None:
            return self._labels(self._scorer.log_probabilities(model, states, mask, self.everywhere))
        ids = greedy_decode(model, states, mask, self.max_length, ~wanted, self.everywhere)
        rows = ids.cpu().numpy()
        if not self.with_confidence or not ids.shape[1]:
            return [self._text(row) for row in rows]
        scores = score_ids(model, states, mask, ids, 1).cpu().numpy()
        return [self._text(row, of_ids) for row, of_ids in zip(rows, scores, strict=True)]

    def respond(
        self,
        model: CrossModalT5,
        examples: Sequence[Example],
        interfaces: Mapping[str, MediaInterface],
        batch_size: int,
    ) -> list[Written]:
        """Return the answers to `examples`, in the same order."""
        order = sorted(range(len(examples)), key=lambda n: len(examples[n].input_ids))  # little padding
        written: dict[int, Written] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            inputs = collate_inputs([examples[n] for n in chosen], interfaces).to(model.device)
            states, mask = encode(model, inputs)
            wanted = torch.ones(len(chosen), dtype=torch.bool, device=model.device)
            written.update(zip(chosen, self.answers(model, states, mask, wanted), strict=True))
        return [written[n] for n in range(len(examples))]

    @cached_property
    def _scorer(self) -> LabelScorer:
        assert self.labels is not None
        return LabelScorer(self.labels)

    def _labels(self, log_probabilities: Tensor) -> list[Written]:
        assert self.labels is not None
        rows = log_probabilities.exp().tolist()
        return [
            Written(label, label, dict(zip(self.labels, row, strict=True)), confidence=max(row))
            for row in rows
            for label in [self.labels[int(np.argmax(row))]]
        ]

    def _text(self, ids: np.ndarray, log_probabilities: np.ndarray | None = None) -> Written:
        raw = decode_bytes(ids)
        ends = np.flatnonzero(ids == EOS_ID)
        confidence = None
        if log_probabilities is not None:
            count = int(ends[0]) + 1 if len(ends) else len(ids)
            confidence = math.exp(float(log_probabilities[:count].mean()))
        return Written(
            raw.decode("utf-8", "replace"),
            raw.decode("utf-8", "surrogateescape"),
            confidence=confidence,
            ended=bool(len(ends)),
        )
