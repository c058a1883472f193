"""An optimizer step on a GPU in bf16: ours with each attention, compiled or not, and transformers' T5.

Transformers' T5 trains in a plain loop over padded batches with its mask, with eager attention and with sdpa. Both
sides train the same weights on the same examples with the same fused AdamW, and accumulate over micro-batches of
limited size:

- `full`: rows of 1024 + 189 ids, as denoising makes them, without padding;
- `mixed`: texts of 30 to 1,500 bytes. `data.budget` makes our micro-batches; those for transformers have 16 texts,
  grouped by length, the best that its Trainer offers.

Rates count useful bytes (input and target ids without padding), tokens with padding, and the FLOP of a model without
padding. Ratios are to transformers at the same size and kind of text. Attentions and `compile` are the choices of
`Backbone`; those that the device cannot run are refused and named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5ForConditionalGeneration

from benchmarks.device import Device, Group
from benchmarks.peers import plain_t5
from kebyt5_xm.data.batch import IGNORE_INDEX, Batch, Progress
from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.flops import step_flops
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.vocabulary import PAD_ID

Size = Literal["mini", "small", "base", "large"]
PEERS = ("eager", "sdpa")
"""Transformers' own attentions."""

TOY = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
FULL = (1024, 189)
"""Input and target ids of ByT5's denoising."""
MIXED = (30, 1500)
ROWS, MICRO_BATCHES = 16, 4
TOY_FULL, TOY_MIXED, TOY_ROWS = (31, 7), (3, 47), 3
NUM_FULL, NUM_MIXED = 97, 4096
"""Number of texts; a step takes some of them."""
TARGET_SHARE = 5
"""The target of a mixed text has a fifth of its length."""


@dataclass(frozen=True)
class Examples:
    """Random texts; one optimizer step takes as many as its budget of positions holds.

    `lengths` [n, 2] are the lengths of inputs [n, S] and targets [n, T]. `micro_length` is the number of positions in
    one of our `MICRO_BATCHES` micro-batches per step; `rows` is the number of texts in a batch for transformers.
    """

    lengths: NDArray[np.int64]
    inputs: Tensor
    targets: Tensor
    micro_length: int
    rows: int

    @classmethod
    def draw(cls, lengths: NDArray[np.int64], micro_length: int, rows: int, device: str) -> "Examples":
        """Draw byte ids for texts of these lengths."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(len(lengths), int(longest)) for longest in lengths.max(axis=0)]
        inputs, targets = (torch.randint(3, 248, shape, generator=generator).to(device) for shape in shapes)
        return cls(lengths, inputs, targets, micro_length, rows)

    def our_batches(self) -> list[NDArray[np.int64]]:
        """Return the rows of each micro-batch of a step, as `data.budget` makes them."""
        plan = Plan((Part("texts", len(self.lengths), 1.0, "random"),), (1.0,), seed=0)
        budget = Budget(MICRO_BATCHES * self.micro_length, self.micro_length)
        step = BudgetedSteps(plan, lambda draws: self.lengths[draws.row], budget).batch(0)
        return [micro_batch.draws.row for micro_batch in step.micro_batches]

    def their_batches(self) -> list[NDArray[np.int64]]:
        """Return the same rows in batches of `rows` for transformers, sorted by length."""
        chosen = np.concatenate(self.our_batches())
        ordered = chosen[np.argsort(-self.lengths[chosen, 0], kind="stable")]
        return [ordered[place : place + self.rows] for place in range(0, len(ordered), self.rows)]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return rows as a micro-batch, padded to the longest."""
        lengths = torch.from_numpy(self.lengths[rows]).to(self.inputs.device)
        longest, longest_target = self.lengths[rows].max(axis=0).tolist()
        inputs, targets = self.inputs[rows, :longest], self.targets[rows, :longest_target]
        places = torch.arange(max(longest, longest_target), device=lengths.device)
        inputs = Inputs(
            inputs.masked_fill(places[:longest] >= lengths[:, :1], PAD_ID),
            lengths[:, 0],
            full=bool((self.lengths[rows, 0] == longest).all()),
        )
        return Batch(
            inputs,
            labels=targets.masked_fill(places[:longest_target] >= lengths[:, 1:], IGNORE_INDEX),
            part=torch.zeros(len(rows), device=lengths.device),
            progress=Progress(num_targets=int(self.lengths[np.concatenate(self.our_batches()), 1].sum())),
            lengths=[(inputs, targets) for inputs, targets in self.lengths[rows].tolist()],
        )


def make_examples(device: Device) -> dict[str, Examples]:
    """Return the examples to train on, by kind."""
    full, (shortest, longest) = (TOY_FULL, TOY_MIXED) if device.toy else (FULL, MIXED)
    rows = TOY_ROWS if device.toy else ROWS
    rng = np.random.default_rng(0)
    mixed = np.exp(rng.uniform(np.log(shortest), np.log(longest), NUM_MIXED)).astype(np.int64)
    targets = np.maximum(1, mixed // TARGET_SHARE)
    return {
        "full": Examples.draw(np.tile(full, (NUM_FULL, 1)), rows * full[0], rows, device.kind),
        "mixed": Examples.draw(np.stack([mixed, targets], axis=1), rows * full[0], rows, device.kind),
    }


def random_backbone(size: Size, device: Device, **options: Any) -> Backbone:
    """Return a backbone with random weights and other `options` of `Backbone`."""
    return Backbone(shape=TOY, **options) if device.toy else Backbone(size, **options)


def choices(field: str) -> list[Any]:
    """Return the values that `Backbone` accepts for a field, the default first; none if it has no such field."""
    default = {f.name: f.default for f in fields(Backbone)}
    if field not in default:
        return []
    values = [value for value in _values(get_type_hints(Backbone)[field]) if value is not None]
    return sorted(values, key=lambda value: value != default[field])


def _values(hint: Any) -> tuple[Any, ...]:
    """Return the values of a type of `Literal`s and bools, in the order in which it names them."""
    if hint is bool:
        return (False, True)
    if get_origin(hint) is Literal:
        return get_args(hint)
    return tuple(value for inner in get_args(hint) for value in _values(inner))


def variants(toy: bool) -> dict[str, dict[str, Any]]:
    """Return the ways to train: name -> options of `Backbone`. Each attention, then each compiled.

    At toy sizes only the default attention is compiled, since it takes long.
    """
    plain = {attention: {"attention": attention} for attention in choices("attention")}
    compiled = {
        f"{name}_compile_{str(value).lower()}": {**options, "compile": value}
        for value in choices("compile")[1:]
        for name, options in list(plain.items())[: 1 if toy else None]
    }
    return plain | compiled


class Step:
    """One optimizer step over micro-batches; `loss` gives a micro-batch's share of the mean over all targets."""

    def __init__(
        self,
        device: Device,
        optimizer: torch.optim.Optimizer,
        batches: list[Batch],
        loss: Callable[[Batch], Tensor],
    ) -> None:
        self.device, self.optimizer, self.batches, self.loss = device, optimizer, batches, loss

    def __call__(self) -> None:
        for batch in self.batches:
            with torch.autocast(self.device.kind, torch.bfloat16):
                loss = self.loss(batch)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def our_loss(model: CrossModalT5, batch: Batch) -> Tensor:
    """Return a micro-batch's share of the mean loss over all targets of the step, as in `Task`."""
    logits = teacher_force(model, batch.inputs, batch.labels).logits
    return token_losses(logits, batch.labels).sum() / batch.progress.num_targets


def their_loss(t5: T5ForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the same from transformers' own loss; like its tokenizer, it always gives a mask."""
    mask = (batch.inputs.input_ids != PAD_ID).long()
    loss = t5(
        input_ids=batch.inputs.input_ids, attention_mask=mask, labels=batch.labels, use_cache=False
    ).loss
    return loss * ((batch.labels != IGNORE_INDEX).sum() / batch.progress.num_targets)


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the measurements, by size; the peers first."""
    for size in sizes:
        trainer = _Training(size, device, rates["matrix_tflop_per_s"], {})
        for attention in PEERS:
            yield (size, "transformers", attention), partial(trainer.prepare_theirs, attention)
        for name, options in variants(device.toy).items():
            yield (size, "ours", name), partial(trainer.prepare_ours, options)


Measurements = dict[str, Callable[[], dict[str, float]]]


@dataclass
class _Training:
    """Measures training at one size. `peers`: (attention, kind) -> seconds of transformers' step."""

    size: Size
    device: Device
    matrix_rate: float
    peers: dict[tuple[str, str], float]

    def prepare_theirs(self, attention: str) -> Measurements:
        with torch.device(self.device.kind):
            t5 = plain_t5(random_backbone(self.size, self.device).config(), attention)

        def measure(kind: str, examples: Examples) -> dict[str, float]:
            figures = self._measure(examples, examples.their_batches(), t5, partial(their_loss, t5))
            self.peers[attention, kind] = figures["seconds"]
            return figures

        return {
            kind: partial(measure, kind, examples) for kind, examples in make_examples(self.device).items()
        }

    def prepare_ours(self, options: dict[str, Any]) -> Measurements:
        with torch.device(self.device.kind):
            t5 = random_backbone(self.size, self.device, **options).build()
        model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).train()

        def measure(kind: str, examples: Examples) -> dict[str, float]:
            figures = self._measure(examples, examples.our_batches(), t5, partial(our_loss, model))
            for peer in PEERS:
                if seconds := self.peers.get((peer, kind)):
                    figures[f"ratio_to_transformers_{peer}"] = seconds / figures["seconds"]
            return figures

        return {
            kind: partial(measure, kind, examples) for kind, examples in make_examples(self.device).items()
        }

    def _measure(
        self,
        examples: Examples,
        batches: list[NDArray[np.int64]],
        t5: T5ForConditionalGeneration,
        loss: Callable[[Batch], Tensor],
    ) -> dict[str, float]:
        self.device.free_memory()
        optimizer = torch.optim.AdamW(t5.parameters(), lr=1e-4, fused=True)
        step = Step(self.device, optimizer, [examples.batch(rows) for rows in batches], loss)
        seconds = self.device.measure_seconds(step, warmup=1, repeats=1 if self.device.toy else 3)
        lengths = examples.lengths[np.concatenate(examples.our_batches())]
        flops = sum(step_flops(t5.config, *map(int, length)) for length in lengths) / seconds / 1e12
        tokens = sum(batch.inputs.input_ids.numel() + batch.labels.numel() for batch in step.batches)
        return {
            "useful_bytes_per_s": int(lengths.sum()) / seconds,
            "seconds": seconds,
            "examples_per_s": len(lengths) / seconds,
            "tokens_per_s": tokens / seconds,
            "model_tflop_per_s": flops,
            "share_of_matrix_rate": flops / self.matrix_rate,
            **self.device.peak_memory(),
        }
