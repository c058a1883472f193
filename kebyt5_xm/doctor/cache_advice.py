"""Whether a feature cache pays for a frozen encoder, from what one pass here took and what the plan will draw."""

import time

import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.doctor.findings import Finding
from kebyt5_xm.model import CrossModalT5

GB = 1e9
WORTH_SHARE = 0.1
"""Of a step's time: with less, a cache saves little. Our own choice, like the next."""
WORTH_EPOCHS = 1.5
"""Passes over the media from which on a fill is earned back."""
REPEATS = 3


def check_cache(
    name: str, model: CrossModalT5, data: DataModule, batch: Batch, step_seconds: float, max_steps: int
) -> Finding:
    """Return the advice on a modality whose encoder is frozen; `step_seconds` is a training pass over `batch`."""
    interface = data.interfaces[name]
    if interface.cache is not None:
        return Finding(
            f"{name}: cache", "ok", f"{len(interface.cache)} media in {interface.cache.folder.parent}"
        )
    groups = [group for group in batch.media if group.modality == name]
    if not groups:
        return Finding(f"{name}: cache", "skipped", "no example here has this modality")
    encoder = model.modality(name).encoder
    seconds, feature_bytes = 0.0, 0
    with torch.no_grad():
        for group in groups:
            encoded = encoder(group.prepared, group.lengths)
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                encoder(group.prepared, group.lengths)
                times.append(time.perf_counter() - started)
            seconds += min(times)
            feature_bytes += int(encoded.mask.sum()) * encoded.features.shape[-1] * encoded.features.itemsize
    rows, epochs = _epochs(data, name, max_steps)
    share = seconds / step_seconds
    size = feature_bytes / _examples(batch, name) * rows
    found = (
        f"the frozen encoder takes {share:.0%} of a step here, and its media come round {epochs:.3g} times; all "
        f"their features are about {size / GB:.3g} GB"
    )
    if share >= WORTH_SHARE and epochs >= WORTH_EPOCHS:
        advice = f"worth a cache: set model.modalities.{name}.cache: FOLDER, and run `kebyt5-xm cache`"
    else:
        advice = "not worth a cache"
    return Finding(f"{name}: cache", "ok", f"{found}: {advice}")


def _examples(batch: Batch, name: str) -> int:
    return len({int(row) for group in batch.media if group.modality == name for row in group.row})


def _epochs(data: DataModule, name: str, max_steps: int) -> tuple[int, float]:
    """Return the rows of the sources that use the modality, and how often training passes over them."""
    plan = data.course.plan
    using = [
        number
        for number in range(len(plan.parts))
        if name in getattr(data.training.source(number), "interfaces", {})
    ]
    rows = sum(plan.parts[number].num_rows for number in using)
    share = sum(plan.weights[number] for number in using) / sum(plan.weights)
    return rows, max_steps * data.steps.batch(0).stop * share / max(1, rows)
