"""An optimizer step on a GPU in bf16, beside transformers' T5 in a plain loop over padded batches.

Both train the same weights on the same examples with the same fused AdamW, and accumulate over micro-batches of no
more than so many positions:

- `full`: rows of 1024 + 189 ids, as denoising makes them, that need no padding;
- `mixed`: texts of 30 to 1,500 bytes. Ours come in the micro-batches that `data.budget` makes; the peer's are
  grouped by length, as its Trainer does at its best, 16 to a batch.

Rates count useful bytes (ids of input and target, padding left out), tokens with padding, and the FLOP that a model
without padding would need.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.device import Device, Group
from kebyt5_xm.commands.doctor.flops import step_flops
from kebyt5_xm.data.batch import IGNORE_INDEX, Batch, Progress
from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.vocabulary import PAD_ID

Size = Literal["mini", "small", "base", "large"]
Attention = Literal["sdpa", "eager"]

TOY = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
FULL = (1024, 189)
"""Input and target ids of ByT5's denoising."""
MIXED = (30, 1500)
ROWS, MICRO_BATCHES = 16, 4
TOY_FULL, TOY_MIXED, TOY_ROWS = (31, 7), (3, 47), 3
NUM_FULL, NUM_MIXED = 97, 4096
"""Texts to draw a step from, more than one takes."""
TARGET_SHARE = 5
"""A mixed text has a target of a fifth of its length."""


@dataclass(frozen=True)
class Examples:
    """Random texts, of which one optimizer step takes as many as its budget of positions holds.

    `lengths` [n, 2] are those of inputs [n, S] and targets [n, T]; `micro_length` are the positions of one forward
    pass of ours, of which a step has `MICRO_BATCHES`, and `rows` the texts in one of the peer's.
    """

    lengths: NDArray[np.int64]
    inputs: Tensor
    targets: Tensor
    micro_length: int
    rows: int

    @classmethod
    def of(cls, lengths: NDArray[np.int64], micro_length: int, rows: int, device: str) -> "Examples":
        """Draw byte ids for texts of these lengths."""
        drawn = torch.Generator().manual_seed(0)
        shapes = [(len(lengths), int(longest)) for longest in lengths.max(axis=0)]
        inputs, targets = (torch.randint(3, 248, shape, generator=drawn).to(device) for shape in shapes)
        return cls(lengths, inputs, targets, micro_length, rows)

    def ours(self) -> list[NDArray[np.int64]]:
        """Return the texts of every micro-batch of a step, as `data.budget` makes them."""
        plan = Plan((Part("texts", len(self.lengths), 1.0, "random"),), (1.0,), seed=0)
        budget = Budget(MICRO_BATCHES * self.micro_length, self.micro_length)
        step = BudgetedSteps(plan, lambda draws: self.lengths[draws.row], budget).batch(0)
        return [micro_batch.draws.row for micro_batch in step.micro_batches]

    def peers(self) -> list[NDArray[np.int64]]:
        """Return the same texts in batches of `rows` each, those of like length together."""
        chosen = np.concatenate(self.ours())
        ordered = chosen[np.argsort(-self.lengths[chosen, 0], kind="stable")]
        return [ordered[place : place + self.rows] for place in range(0, len(ordered), self.rows)]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return texts as a micro-batch, padded to the longest."""
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
            progress=Progress(num_targets=int(self.lengths[np.concatenate(self.ours()), 1].sum())),
            num_ids=int(self.lengths[rows].sum()),
        )


def kinds(device: Device) -> dict[str, Examples]:
    """Return the examples that are trained on."""
    full, (shortest, longest) = (TOY_FULL, TOY_MIXED) if device.toy else (FULL, MIXED)
    rows = TOY_ROWS if device.toy else ROWS
    drawn = np.random.default_rng(0)
    mixed = np.exp(drawn.uniform(np.log(shortest), np.log(longest), NUM_MIXED)).astype(np.int64)
    targets = np.maximum(1, mixed // TARGET_SHARE)
    return {
        "full": Examples.of(np.tile(full, (NUM_FULL, 1)), rows * full[0], rows, device.kind),
        "mixed": Examples.of(np.stack([mixed, targets], axis=1), rows * full[0], rows, device.kind),
    }


def backbone_of(size: Size, attention: Attention, device: Device) -> Backbone:
    """Return a backbone with random weights."""
    return Backbone(shape=TOY, attention=attention) if device.toy else Backbone(size, attention=attention)


class Step:
    """One optimizer step over micro-batches; `loss` gives what one of them adds to the mean over all targets."""

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
    """Return a micro-batch's share of the mean loss over all targets of the step, as `Task` has it."""
    logits = teacher_force(model, batch.inputs, batch.labels).logits
    return token_losses(logits, batch.labels).sum() / batch.progress.num_targets


def their_loss(t5: T5ForConditionalGeneration, batch: Batch) -> Tensor:
    """Return the same by transformers' own loss, with the mask that its tokenizer gives, padding or not."""
    mask = (batch.inputs.input_ids != PAD_ID).long()
    loss = t5(
        input_ids=batch.inputs.input_ids, attention_mask=mask, labels=batch.labels, use_cache=False
    ).loss
    return loss * ((batch.labels != IGNORE_INDEX).sum() / batch.progress.num_targets)


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield what there is to measure, by size and attention."""
    for size in sizes:
        for attention in ("sdpa", "eager"):
            yield (
                (size, attention),
                partial(_measurements, size, attention, device, rates["matrix_tflop_per_s"]),
            )


def _measurements(
    size: Size, attention: Attention, device: Device, matrix_rate: float
) -> dict[str, Callable[[], dict[str, float]]]:
    with torch.device(device.kind):
        t5 = backbone_of(size, attention, device).build()
    model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).train()
    optimizer = torch.optim.AdamW(t5.parameters(), lr=1e-4, fused=True)

    found = {}
    for kind, examples in kinds(device).items():
        for who, rows, loss in (
            ("ours", examples.ours(), partial(our_loss, model)),
            ("transformers", examples.peers(), partial(their_loss, t5)),
        ):
            step = Step(device, optimizer, [examples.batch(chosen) for chosen in rows], loss)
            found[f"{kind}_{who}"] = partial(_figures, step, examples, t5.config, matrix_rate)
    return found


def _figures(step: Step, examples: Examples, config: T5Config, matrix_rate: float) -> dict[str, float]:
    step.device.forget()
    seconds = step.device.seconds(step, warmup=1, repeats=1 if step.device.toy else 3)
    lengths = examples.lengths[np.concatenate(examples.ours())]
    flops = sum(step_flops(config, *map(int, length)) for length in lengths) / seconds / 1e12
    tokens = sum(batch.inputs.input_ids.numel() + batch.labels.numel() for batch in step.batches)
    return {
        "seconds": seconds,
        "examples_per_s": len(lengths) / seconds,
        "useful_bytes_per_s": int(lengths.sum()) / seconds,
        "tokens_per_s": tokens / seconds,
        "model_tflop_per_s": flops,
        "share_of_matrix_rate": flops / matrix_rate,
        **step.device.peak_memory(),
    }
