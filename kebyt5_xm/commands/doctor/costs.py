"""One forward and backward pass: memory, time, and the parameters that get a gradient."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kebyt5_xm.commands.doctor.findings import Finding, verdict
from kebyt5_xm.commands.doctor.samples import forward
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import CTC, PREFIX
from kebyt5_xm.model.lora import LORA_SUFFIXES
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.training.ctc_loss import CTCLoss
from kebyt5_xm.training.draft_loss import draft_losses

SHOWN = 3
"""Names of parameters listed in a finding."""


@dataclass(frozen=True)
class Pass:
    """The result of one forward and backward pass."""

    rows: int
    inputs: int  # S, padding included
    targets: int  # T, padding included
    seconds: float
    kept_bytes: int  # saved for the backward pass, without parameters
    unreached: list[str]  # trainable, without any gradient
    leaking: list[str]  # frozen, with a gradient


def ctc_of_all_sources(heads: Mapping[str, CTC], num_parts: int = 1) -> CTCLoss:
    """Return the loss of the model's CTC heads, which here learn the targets of all parts of the mixture."""
    return CTCLoss(heads, dict.fromkeys(heads, frozenset(range(num_parts))), torch.device("cpu"))


def find_loss(model: CrossModalT5, batch: Batch, ctc: CTCLoss) -> Tensor:
    """Return the sum of all losses that training takes of a batch, in nats."""
    output = forward(model, batch, ctc.find(batch))
    loss = token_losses(output.logits, batch.labels).sum()
    drafted = draft_losses(output, batch)
    if drafted is not None:
        loss = loss + drafted[0].sum()
    heard = ctc.add(output, step=0, factor=1.0)
    return loss if heard is None else loss + heard


def training_pass(model: CrossModalT5, batch: Batch, ctc: CTCLoss | None = None) -> Pass:
    """Run one pass in training mode and fp32 on the CPU; gradients are cleared afterwards."""
    ctc = ctc or ctc_of_all_sources({})
    model.train()
    parameters = dict(model.named_parameters())
    weights = {p.untyped_storage().data_ptr() for p in parameters.values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    started = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = find_loss(model, batch, ctc)
    if loss.requires_grad:
        loss.backward()
    seconds = time.perf_counter() - started
    present = {group.modality for group in batch.inputs.media}
    absent = tuple(f"modalities.{name}." for name in model.modalities if name not in present)
    # A head that has no transcript in these samples gets no gradient.
    absent += tuple(f"{PREFIX}{name}." for name, found in ctc.transcripts.items() if not found.targets)
    unreached = [
        name
        for name, p in parameters.items()
        if p.requires_grad
        and not name.startswith(absent)
        # LoRA's A has no gradient in the first step, when B is zero
        and not name.endswith(LORA_SUFFIXES[0])
        and (p.grad is None or not p.grad.any())
    ]
    leaking = [name for name, p in parameters.items() if not p.requires_grad and p.grad is not None]
    model.zero_grad(set_to_none=True)
    rows, inputs = batch.inputs.input_ids.shape
    targets = batch.labels.shape[1]
    return Pass(rows, inputs, targets, seconds, sum(kept.values()), unreached, leaking)


def check_gradients(model: CrossModalT5, done: Pass) -> Finding:
    """Return the finding on parameters that get a gradient, against those that should."""
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    found = f"{sizes[True]:,} parameters train, {sizes[False]:,} are frozen"
    if not sizes[True]:
        return Finding(
            "model: gradients",
            "FAILED",
            found,
            "set model.backbone.frozen, or `frozen` of an encoder, to false, or add an adapter",
        )
    wrong = done.unreached + done.leaking
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    kind = "no gradient reaches" if done.unreached else "a gradient reaches the frozen"
    return verdict(
        "model: gradients",
        not wrong,
        found
        + (f"; {kind} {', '.join(wrong[:SHOWN])}{more}" if wrong else ", and gradients reach exactly these"),
        "a parameter that the loss does not depend on cannot learn: freeze it (`frozen: true` of its encoder), or "
        "change the class_path of the module that ignores it",
    )
