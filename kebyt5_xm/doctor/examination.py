"""The order of the checks, and what can still be told after one has failed."""

from collections.abc import Iterator

from kebyt5_xm import recipes
from kebyt5_xm.configured import configured
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.source import Example
from kebyt5_xm.doctor.cache_advice import check_cache
from kebyt5_xm.doctor.costs import check_gradients, estimates, training_pass
from kebyt5_xm.doctor.findings import Finding
from kebyt5_xm.doctor.modalities import check_modality
from kebyt5_xm.doctor.samples import PER_SOURCE, batch_of, check_samples, first_examples
from kebyt5_xm.errors import UserError


def examine(paths: list[str], random_weights: bool) -> list[Finding]:
    """Return all findings on the recipes at `paths`. Raises `UserError` for what cannot be read or built."""
    return list(_examine(paths, random_weights))


def _examine(paths: list[str], random_weights: bool) -> Iterator[Finding]:
    task, data = configured(paths, random_weights)
    max_steps = int(recipes.merge(paths).get("trainer", {}).get("max_steps") or 0)
    data.connect(task.interfaces())
    try:
        task.building.check()
    except UserError as error:
        yield Finding(
            "what trains", "FAILED", str(error), "change model.groups, model.lora, or what is frozen"
        )
    else:
        groups = ", ".join(task.building.groups) or "none, all at the optimizer's own rate"
        updates = f"; LoRA: {', '.join(task.building.lora)}" if task.building.lora else ""
        yield Finding("what trains", "ok", f"groups: {groups}{updates}")
    try:
        model = task.building.build()
    except UserError as error:
        hint = "" if random_weights else "; --random-weights tries the shape without them"
        raise UserError(f"{error}{hint}") from error

    for name, interface in data.interfaces.items():
        yield from check_modality(name, model.modality(name), interface, model.byte_rms())
    chosen: list[Example] = []
    for name, source in data.sources.items():
        examples, finding = first_examples(name, source, data.seed)
        yield finding
        chosen += examples[:PER_SOURCE]
    if not chosen:
        yield Finding("model", "skipped", "no source gives an example that can be used")
        return
    try:
        yield from check_samples(model, data, chosen)
        done = training_pass(model, batch_of(chosen, data))
    except UserError as error:
        yield Finding("model: real samples", "FAILED", str(error), "change the modality that it names")
        return
    yield check_gradients(model, done)
    batch = batch_of(chosen, data)
    for name in data.interfaces:
        if model.modality(name).encoder.frozen:
            yield check_cache(name, model, data, batch, done.seconds, max_steps)
    micro_batch, global_batch = _sizes(data)
    yield from estimates(model, done, batch, task.optimizer, micro_batch, global_batch)


def _sizes(data: DataModule) -> tuple[int, int]:
    """Return how many examples a micro-batch and a global batch hold; with a budget, the first ones."""
    first = data.steps.batch(0)
    return max(len(micro_batch.draws) for micro_batch in first.micro_batches), first.stop
