"""Runs the checks in order, and goes on after a failed one where possible."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kebyt5_xm.commands.doctor.advice import advise, list_advice, to_overlay
from kebyt5_xm.commands.doctor.cache_advice import check_cache, sources_using
from kebyt5_xm.commands.doctor.costs import check_gradients, ctc_of_all_sources, training_pass
from kebyt5_xm.commands.doctor.ctc import check_ctc
from kebyt5_xm.commands.doctor.estimates import estimates
from kebyt5_xm.commands.doctor.findings import Finding
from kebyt5_xm.commands.doctor.modalities import check_modality
from kebyt5_xm.commands.doctor.samples import PER_SOURCE, batch_of, check_samples, first_examples
from kebyt5_xm.commands.doctor.step_time import time_steps
from kebyt5_xm.commands.written_overlay import check_target, write_overlay
from kebyt5_xm.data.datamodule import check_steps
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.training import trainer_options
from kebyt5_xm.training.callbacks.checkpoints import check_monitor
from kebyt5_xm.training.from_recipes import build_with_config
from kebyt5_xm.training.gate_control import check_batches
from kebyt5_xm.training.task import Task


def examine(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str] = (), write: Path | None = None
) -> list[Finding]:
    """Return all findings on the recipes at `paths`, and write the recommended overlay to `write`.

    Raises `UserError` if the recipes cannot be read or built, or the overlay cannot be written.
    """
    if write is not None:
        check_target(write)
    return list(_examine(paths, random_weights, trusted_modules, write))


def _examine(
    paths: list[str], random_weights: bool, trusted_modules: Sequence[str], write: Path | None
) -> Iterator[Finding]:
    task, data, recipe = build_with_config(paths, random_weights, trusted_modules)
    trainer = recipe["trainer"]
    trainer_options.check(trainer)
    max_steps = trainer["max_steps"]
    data.connect(task.interfaces(read_caches=False))  # a cache may not be filled yet
    num_ranks = _world_size(trainer)
    check_steps(data, max_steps, trainer["accumulate_grad_batches"], num_ranks)
    check_monitor(recipe["monitor"], data)
    trains = False
    try:
        task.builder.check()
        check_batches(task.builder.delete_gate, data.budget)
    except UserError as error:
        yield Finding(
            "what trains", "FAILED", str(error), "change model.groups, model.lora, or what is frozen"
        )
    else:
        trains = True
        groups = ", ".join(task.builder.groups) or "none, all at the optimizer's own rate"
        updates = f"; LoRA: {', '.join(task.builder.lora)}" if task.builder.lora else ""
        heads = task.builder.draft_heads
        drafts = f"; draft heads: {heads.count}" if heads is not None else ""
        yield Finding("what trains", "ok", f"groups: {groups}{updates}{drafts}")
    try:
        model = task.builder.build()
    except UserError as error:
        hint = "" if random_weights else "; --random-weights tries the shape without them"
        raise UserError(f"{error}{hint}") from error

    for name, interface in data.interfaces.items():
        yield from check_modality(name, model.modality(name), interface, model.byte_rms())
    optimizes = False
    if trains:
        finding = _optimization(task, model, max_steps)
        optimizes = finding.status == "ok"
        yield finding
    chosen: dict[str, list[Example]] = {}
    for name, source in data.sources.items():
        examples, finding = first_examples(name, source, data.seed)
        yield finding
        chosen[name] = examples[:PER_SOURCE]
    yield from check_ctc(task.builder.ctc, data)
    together = [example for examples in chosen.values() for example in examples]
    if not together:
        yield Finding("model", "skipped", "no source gives an example that can be used")
        return
    batch = batch_of(together, data)
    try:
        yield from check_samples(model, data, together)
        done = training_pass(model, batch, ctc_of_all_sources(task.builder.ctc))
    except UserError as error:
        yield Finding("model: real samples", "FAILED", str(error), "change the modality that it names")
        return
    yield check_gradients(model, done)
    for name, modality in task.modalities.items():
        if model.modality(name).encoder.has_fixed_features:
            using = sources_using(name, data, chosen)
            yield check_cache(
                name, model, data, batch, using=using, max_steps=max_steps, cache=modality.cache
            )
    try:
        advice, filling = advise(task, model, data, num_ranks)
        yield from list_advice(advice, filling, data, recipe, paths)
    except UserError as error:
        yield Finding(
            "advice: padding", "FAILED", str(error), "change data.budget, or the sources that it names"
        )
        return
    if write is not None:
        reasons = [f"{advice.reason[0].upper()}{advice.reason[1:]}.", f"Rate: {advice.settings.rate_source}."]
        use = write_overlay(write, "doctor", paths, reasons, to_overlay(advice, recipe))
        yield Finding("advice: overlay", "ok", f"wrote {write}; train with: {use}")
    if not optimizes:  # the estimate includes the optimizer's state
        return
    optimizer = task.optimization.build(model, max_steps)[0]
    found = time_steps(model, data, optimizer, max_steps, done, task.builder.ctc)
    yield from estimates(model, done, batch, task.optimization.optimizer, found, max_steps)


def _optimization(task: Task, model: CrossModalT5, max_steps: int) -> Finding:
    """Return the finding on the optimizer and the schedule, built as in training."""
    check = "optimizer"
    try:
        optimizer, schedule = task.optimization.build(model, max_steps)
    except UserError as error:
        return Finding(check, "FAILED", str(error), "change model.optimizer, model.schedule or model.groups")
    rates = sorted({float(group.get("initial_lr", group.get("lr", 0.0))) for group in optimizer.param_groups})
    shown = f"{rates[0]:g}" if len(rates) == 1 else f"{rates[0]:g} to {rates[-1]:g}"
    by = "a constant rate" if schedule is None else type(schedule).__name__
    return Finding(
        check, "ok", f"{type(optimizer).__name__} at a rate of {shown}, {by}, over {max_steps} steps"
    )


def _world_size(trainer: Mapping[str, Any]) -> int:
    """Return the number of ranks in a recipe; 1 if it is left to the machine."""
    devices = trainer.get("devices")
    if isinstance(devices, list):
        devices = len(devices)
    elif isinstance(devices, str) and devices.isdecimal():
        devices = int(devices)
    counts = (devices, trainer.get("num_nodes"))
    return math.prod(count if type(count) is int and count > 0 else 1 for count in counts)
