"""Advice on feature caches: whether one pays for a frozen encoder, from measured passes and the plan."""

from collections.abc import Set
from dataclasses import replace
from typing import Any

import torch

from kebyt5_xm.commands.doctor.costs import training_pass
from kebyt5_xm.commands.doctor.findings import Finding
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.feature_cache import FeatureCache
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.modality import cache_folder

GB = 1e9
WORTH_SHARE = 0.1
"""A cache is advised if the encoder takes at least this share of a step. Our choice, as the next one."""
WORTH_EPOCHS = 1.5
"""A cache is advised from this many passes over the media on."""
REPEATS = 3


def check_cache(
    name: str,
    model: CrossModalT5,
    data: DataModule,
    batch: Batch,
    *,
    using: Set[str],
    max_steps: int,
    cache: str | None,
) -> Finding:
    """Return the advice for a modality with a frozen encoder.

    Args:
        batch: real examples, media as the encoder takes them.
        using: sources whose examples have the modality.
        max_steps: optimizer steps of the run.
        cache: folder that the recipe names.
    """
    if all(group.modality != name for group in batch.inputs.media):
        return Finding(f"{name}: cache", "skipped", "no example here has this modality")
    encoded, feature_bytes = _encoded(name, model, batch)
    passes = {"with": batch, "without": encoded}
    seconds = dict.fromkeys(passes, float("inf"))
    for turn in range(REPEATS + 1):  # alternating; the first of each is not counted
        for kind, of in passes.items():
            taken = training_pass(model, of).seconds
            seconds[kind] = min(seconds[kind], taken) if turn else seconds[kind]
    share = max(0.0, 1 - seconds["without"] / seconds["with"])
    rows, epochs = _epochs(data, using, max_steps)
    size = feature_bytes / _examples(batch, name) * rows
    found = (
        f"the frozen encoder takes {share:.0%} of a step here, and its media come round {epochs:.3g} times; all "
        f"their features are about {size / GB:.3g} GB"
    )
    if cache is not None:
        return Finding(f"{name}: cache", "ok", f"{found}: {_filled(cache, model.modality(name).encoder)}")
    if share >= WORTH_SHARE and epochs >= WORTH_EPOCHS:
        advice = f"worth a cache: set model.modalities.{name}.cache: FOLDER, and run `kebyt5-xm cache`"
    else:
        advice = "not worth a cache"
    return Finding(f"{name}: cache", "ok", f"{found}: {advice}")


def sources_using(name: str, data: DataModule, chosen: dict[str, list[Any]]) -> set[str]:
    """Return the sources that feed modality `name`, by their prompts or by `chosen` examples."""
    return {
        source
        for source, made in data.sources.items()
        if name in made.modalities
        or any(medium.modality == name for example in chosen.get(source, ()) for medium in example.media)
    }


def _filled(cache: str, encoder: Encoder) -> str:
    """Return a phrase on the cache's content for this encoder; training needs all features."""
    try:
        found = FeatureCache(cache_folder(cache, encoder))
        return f"{len(found)} media in {cache}" if found.description else ""
    except UserError as error:
        return str(error)


def _encoded(name: str, model: CrossModalT5, batch: Batch) -> tuple[Batch, int]:
    """Return the batch with one modality's media replaced by features, as from a cache, and their size in bytes."""
    encoder = model.modality(name).encoder
    media, feature_bytes = [], 0
    for group in batch.inputs.media:
        if group.modality == name:
            with torch.no_grad():
                encoded = encoder(group.prepared, group.lengths)
            features, lengths = encoded.features, encoded.mask.sum(1)
            feature_bytes += int(lengths.sum()) * features.shape[-1] * features.itemsize
            if encoded.grid is not None:
                features = features.unflatten(1, encoded.grid)
            group = replace(group, prepared=features, lengths=lengths, encoded=True)
        media.append(group)
    return replace(batch, inputs=replace(batch.inputs, media=media)), feature_bytes


def _examples(batch: Batch, name: str) -> int:
    return len({int(row) for group in batch.inputs.media if group.modality == name for row in group.row})


def _epochs(data: DataModule, using: Set[str], max_steps: int) -> tuple[int, float]:
    """Return the rows of the sources `using` the modality, and the number of training passes over them."""
    plan, names = data.cursor.plan, list(data.sources)
    parts = [n for n in range(len(plan.parts)) if names[data.training.source_of_part[n]] in using]
    rows = sum(plan.parts[number].num_rows for number in parts)
    share = float(data.cursor.mean_shares(max_steps)[parts].sum())
    return rows, max_steps * data.steps.batch(0).stop * share / max(1, rows)
