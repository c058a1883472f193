"""Fills feature caches: one pass of frozen encoders over the media of a recipe, before training."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.feature_cache import FeatureCache, Segment, media_key
from kebyt5_xm.data.media.interface import MediaInterface, cache_key
from kebyt5_xm.data.media.opening import open_media, read_header
from kebyt5_xm.data.sources.prompts import MediaReference
from kebyt5_xm.encoder import Encoder
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.device import explain_out_of_memory, open_device
from kebyt5_xm.model.modality import cache_folder

GB = 1e9
SEGMENT_BYTES = 1 << 30
"""A segment is closed after so many bytes of features. A killed command loses at most one segment."""
SHOWN_CAUSES = 3


def fill(
    paths: list[str],
    batch_size: int,
    device: str,
    max_gb: float,
    shard: str,
    trusted_modules: Sequence[str] = (),
) -> Iterator[str]:
    """Fill the cache of every modality that has one; yield a report line for each. Raises `UserError`."""
    from kebyt5_xm.training.from_recipes import build_task

    part, parts = _shard(shard)
    if batch_size < 1:
        raise UserError(f"found --batch-size {batch_size}, expected 1 or more")
    where = open_device(device)
    task, data = build_task(paths, False, trusted_modules)
    interfaces = task.interfaces(read_caches=False)
    data.connect(interfaces)
    cached = [name for name, modality in task.modalities.items() if modality.cache is not None]
    if not cached:
        raise UserError("no modality has a cache; give one: model.modalities.NAME.cache: FOLDER")
    for name in cached:
        folder = cache_folder(task.modalities[name].cache, task.builder.encoder(name))
        media = partial(_media, data, name, part, parts)
        with explain_out_of_memory(where, "lower --batch-size"):
            report = _fill_one(
                folder, task.builder.encoder(name), interfaces[name], media, batch_size, where, max_gb
            )
        yield f"{name}: {report}"


def _media(data: DataModule, name: str, part: int, parts: int) -> Iterator[MediaReference]:
    """Yield the sources' media of modality `name`, each once: every `parts`-th of them, from number `part` on.

    Rows that cannot be used are left out. Memory holds a hash of each reference.
    """
    seen: set[bytes] = set()
    for source in data.sources.values():
        for medium in source.media(name):
            key = media_key(medium.identity)
            if key not in seen:
                seen.add(key)
                if (len(seen) - 1) % parts == part:
                    yield medium


def _fill_one(
    folder: Path,
    encoder: Encoder,
    interface: MediaInterface,
    media: Callable[[], Iterator[MediaReference]],
    batch_size: int,
    device: torch.device,
    max_gb: float,
) -> str:
    weight = next((p for p in encoder.parameters() if p.is_floating_point()), torch.empty(0))
    description = {
        "encoder": f"{type(encoder).__module__}.{type(encoder).__qualname__}",
        "out_dim": encoder.out_dim,
        "dtype": str(weight.dtype).removeprefix("torch."),
    }
    there = FeatureCache(folder) if (folder / "cache.json").exists() else None
    feature_bytes = encoder.out_dim * weight.dtype.itemsize
    num_media = _check_room(folder, interface, media(), feature_bytes, there, max_gb)
    encoder.to(device)
    segment, pending = Segment(folder, description), []
    done: set[bytes] = set()
    causes: dict[str, None] = {}
    try:
        with tqdm(media(), total=num_media, unit=" media", desc=folder.parent.name, disable=None) as bar:
            for medium in bar:
                try:
                    readable = medium.readable()
                    key = cache_key(readable, medium.limits)
                    if key in done or (there is not None and key in there):
                        continue
                    item = open_media(readable, interface.media, medium.limits)
                    pending.append((key, interface.prepare(item)[0]))
                    done.add(key)
                except (BadSample, UserError) as error:
                    causes[str(error)] = None  # once, however many rows refer to it
                    continue
                if len(pending) == batch_size:
                    _encode(segment, encoder, interface, pending, device)
                    pending.clear()
                if segment.num_bytes > SEGMENT_BYTES:
                    segment.finish()
                    segment = Segment(folder, description)
            _encode(segment, encoder, interface, pending, device)
        segment.finish()
    except OSError as error:
        segment.discard()
        raise UserError(
            f"cannot write features to '{folder}': {error.strerror or error}; what is there is whole and kept: make "
            "room, and run the same command again"
        ) from error
    except BaseException:
        segment.discard()
        raise
    found = FeatureCache(folder)
    left_out = f", {len(causes)} left out: {'; '.join([*causes][:SHOWN_CAUSES])}" if causes else ""
    return f"{len(done)} media added, {len(found)} in {folder}, {found.num_bytes / GB:.3f} GB{left_out}"


def _encode(
    segment: Segment,
    encoder: Encoder,
    interface: MediaInterface,
    pending: list[tuple[bytes, Tensor]],
    device: torch.device,
) -> None:
    for members in interface.preprocessor.group([prepared for _, prepared in pending]):
        prepared, lengths = interface.preprocessor.collate([pending[m][1] for m in members])
        with torch.no_grad():
            encoded = encoder(prepared.to(device), lengths.to(device))
        for row, member in enumerate(members):
            segment.add(pending[member][0], encoded.features[row][encoded.mask[row]], encoded.grid)


def _check_room(
    folder: Path,
    interface: MediaInterface,
    media: Iterator[MediaReference],
    feature_bytes: int,
    there: FeatureCache | None,
    max_gb: float,
) -> int:
    """Return the number of media, from their headers alone.

    Raises `UserError` if their features would take more than `max_gb`, or more than the disk has free.
    """
    needed = num_media = 0
    for medium in media:
        num_media += 1
        try:
            found = read_header(medium.readable(), interface.media, medium.limits)
            size = interface.preprocessor.size(found)
        except UserError:
            continue
        needed += size[0] * (size[1] if len(size) == 2 else 1) * feature_bytes
    if needed > max_gb * GB:
        raise UserError(
            f"the features of {num_media} media take {needed / GB:.3f} GB, more than --max-gb {max_gb:g}; raise it, "
            "or train without a cache"
        )
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed - (there.num_bytes if there else 0) > free:
        raise UserError(
            f"the features take {needed / GB:.3f} GB and {free / GB:.3f} GB are free at '{existing}'; make room, or "
            "name another folder"
        )
    return num_media


def _shard(shard: str) -> tuple[int, int]:
    part, _, parts = shard.partition("/")
    if not (part.isdigit() and parts.isdigit() and int(part) < int(parts)):
        raise UserError(f"found --shard {shard}, expected I/N with I from 0 to N - 1, such as 0/4")
    return int(part), int(parts)
