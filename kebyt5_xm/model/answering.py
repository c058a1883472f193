"""Answers of a model to segments: one or the n best, whole or as they are written.

Letters in shapes: R inputs, n answers to each, B = R x n, T ids.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.answer_stream import AnswerStream, write_rows
from kebyt5_xm.model.bayes_risk import check_choice, choose_least_risk
from kebyt5_xm.model.decoding.arguments import (
    Generation,
    generation_settings,
    longest_answer,
    parse_generation,
)
from kebyt5_xm.model.decoding.scoring import score_ids
from kebyt5_xm.model.decoding.utf8 import Utf8LogitsProcessor
from kebyt5_xm.model.decoding.writing import WrittenRow
from kebyt5_xm.model.delete_gate import states_and_mask
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.processor import Processed

if TYPE_CHECKING:
    from kebyt5_xm.metrics.metric import Metric


@dataclass(frozen=True)
class AnswerOptions:
    """What is returned for each input; see `CrossModalT5.answer`."""

    n: int = 1
    choose: "Metric | None" = None
    details: bool = False
    valid_utf8: bool = True
    stop_loops: bool = True
    is_stream: bool = False


class Answering:
    """The search for answers to the inputs of one call.

    Args:
        model: the model.
        inputs: of R examples, on the model's device.
        arguments: of `generate`, as from `search_arguments`.
        options: what is returned.
    """

    def __init__(
        self,
        model: CrossModalNetwork,
        inputs: Processed,
        arguments: Mapping[str, Any],
        options: AnswerOptions,
    ) -> None:
        self._model, self._inputs = model, inputs
        self._arguments, self._options = dict(arguments), options
        self._generation = parse_generation(model.generation_config, arguments)
        self._longest = longest_answer(generation_settings(model.generation_config, arguments))
        if options.choose is not None:
            check_choice(options.choose, options.n)
        if options.is_stream and not self._can_stream:
            raise UserError(
                "found stream=True with n, beams or an argument that transformers decodes, expected one answer, "
                "greedy or sampled: give none but temperature, top_k, top_p, max_new_tokens and generator"
            )
        with torch.no_grad():
            self._states, self._mask = states_and_mask(model.encode(**inputs), inputs["attention_mask"])

    def answers(self) -> list[Any]:
        """Return the answer to each input: a text or `Hypothesis`; for n > 1 without `choose` a list, best first."""
        options = self._options
        rows = self._rows()
        is_sampled = self._generation is None or self._generation.beams is None
        if options.details or (options.n > 1 and is_sampled):
            found: list[Any] = self.score(rows)
        else:
            found = [row.raw.decode("utf-8", "replace") for row in rows]
        groups = [found[start : start + options.n] for start in range(0, len(found), options.n)]
        if options.n > 1 and is_sampled:
            groups = [sorted(group, key=lambda answer: -answer.log_probability) for group in groups]
        if not options.details:
            groups = [[getattr(answer, "text", answer) for answer in group] for group in groups]
        if options.n == 1:
            return [group[0] for group in groups]
        return groups if options.choose is None else [self._chosen(group) for group in groups]

    @property
    def _can_stream(self) -> bool:
        generation = self._generation
        return generation is not None and generation.beams is None and self._options.n == 1

    def stream(self, is_batch: bool) -> AnswerStream:
        """Return the answers as they are written, for `AnswerOptions.is_stream`."""
        return AnswerStream(self._empty_rows(), self._blocks, self.score, is_batch)

    def score(self, rows: list[WrittenRow]) -> list[Hypothesis]:
        """Return the rows with the probabilities of their ids."""
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row.ids, dtype=torch.long) for row in rows], batch_first=True
        ).to(self._states.device)
        if not ids.shape[1]:
            return [Hypothesis.of(row, ()) for row in rows]
        found = score_ids(self._model, self._states, self._mask, ids, self._options.n)
        return [Hypothesis.of(row, values) for row, values in zip(rows, found.tolist(), strict=True)]

    def _rows(self) -> list[WrittenRow]:
        """Write and return the B answers, those to one input side by side."""
        rows, generation = self._empty_rows(), self._generation
        if generation is not None and generation.beams is None:
            write_rows(rows, self._blocks)
            return rows
        ids = self._by_transformers() if generation is None else self._by_beams(generation)
        for row, written in zip(rows, ids.tolist(), strict=True):
            row.add(written)
            row.end("stop")
        return rows

    def _empty_rows(self) -> list[WrittenRow]:
        options, count = self._options, len(self._states) * self._options.n
        return [WrittenRow(self._longest, options.valid_utf8, options.stop_loops) for _ in range(count)]

    def _blocks(self, unfinished: set[int]) -> Iterator[Tensor]:
        assert self._generation is not None
        ids, valid_utf8 = self._inputs["input_ids"], self._options.valid_utf8
        return self._generation.blocks(self._model, self._states, self._mask, ids, unfinished, valid_utf8)

    def _by_beams(self, generation: Generation) -> Tensor:
        return generation(self._model, self._states, self._mask, valid_utf8=self._options.valid_utf8)

    def _by_transformers(self) -> Tensor:
        arguments = self._arguments
        if self._options.valid_utf8:
            ours = Utf8LogitsProcessor(self._longest + 1)
            arguments = arguments | {
                "logits_processor": LogitsProcessorList([*(arguments.get("logits_processor") or ()), ours])
            }
        output = self._model.generate(**self._inputs, **arguments)  # pyright: ignore
        ids = output if isinstance(output, Tensor) else output.sequences
        return ids[:, 1:]  # without the start id

    def _chosen(self, group: list[Any]) -> Any:
        assert self._options.choose is not None
        texts = [getattr(answer, "text", answer) for answer in group]
        return group[choose_least_risk(texts, self._options.choose)]
