"""Checks of one modality on synthetic media: encoder and adapter together, no text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kebyt5_xm.adapters import scale_ratio
from kebyt5_xm.commands.doctor.findings import Finding, verdict
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality_module import ModalityModule

TOLERANCE = 1e-4
"""Slots may differ by this between batches, relative to their RMS: the tolerance of the encoders' contract test."""

MAX_SCALE = 2.0
"""Slots this many times larger or smaller than bytes are out of scale; adapters start at 1.0."""

Slots = tuple[Tensor, Tensor]  # vectors [N, M, D] and mask [N, M]


def synthetic(media: str) -> list[Any]:
    """Return three items: two of unequal sizes, and a third of the first's size with other content."""
    numbers = np.random.default_rng(7)
    if media == "image":
        from PIL import Image

        sizes = ((97, 61), (53, 89), (97, 61))
        return [Image.fromarray(numbers.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    if media == "audio":
        lengths = (11027, 19013, 11027)  # samples at 16 kHz; no round number of frames
        return [(numbers.standard_normal(n).astype(np.float32) * 0.1, 16000) for n in lengths]
    return []


def arrays_like(dummy: Tensor) -> list[Any]:
    """Return arrays as `synthetic` does, for an encoder whose shortest input is `dummy` [1, places..., width].

    The decoded array is assumed to have the axes of the prepared one; otherwise the preprocessor refuses it.
    """
    numbers = np.random.default_rng(7)
    *places, width = dummy.shape[1:]
    sizes = ((5, 7), (3, 11), (5, 7)) if len(places) == 2 else ((11,), (19,), (11,))
    return [numbers.standard_normal((*size, width)).astype(np.float32) for size in sizes]


def check_modality(
    name: str, module: ModalityModule, interface: MediaInterface, byte_rms: float
) -> Iterator[Finding]:
    """Yield the findings on slot counts, padding, batches and scale of one modality."""
    key = f"model.modalities.{name}"
    encoder = type(module.encoder).__name__
    items = synthetic(interface.media)
    if interface.media == "array":
        items = arrays_like(module.encoder.dummy()[0])
        try:
            [interface.prepare(item) for item in items]
        except UserError as error:
            yield Finding(
                f"{name}: synthetic media",
                "skipped",
                f"only real samples can be checked; a synthetic array: {error}",
            )
            return
    module.eval()
    with torch.no_grad():
        try:
            prepared, promised = zip(*(interface.prepare(item) for item in items), strict=True)
            alone = [_slots(module, interface, [tensor]) for tensor in prepared]
        except UserError as error:
            yield Finding(f"{name}: synthetic media", "FAILED", str(error), f"correct {key}.encoder")
            return
        counts = [int(mask.sum()) for _, mask in alone]
        yield verdict(
            f"{name}: slot counts",
            counts == list(promised),
            f"the headers promise {list(promised)} slots, encoder and adapter make {counts}",
            f"{encoder}'s size() and forward() disagree; give {key}.encoder another class_path or correct that one",
        )
        yield _padding(f"{name}: padding", key, module, interface, list(prepared[:2]), alone[:2])
        pair = _slots(module, interface, [prepared[0], prepared[2]])
        worst = max(_difference(pair, 0, alone[0]), _difference(pair, 1, alone[2]))
        yield verdict(
            f"{name}: batch of 2",
            worst <= TOLERANCE,
            f"differs from each alone by {worst:.1e} (at most {TOLERANCE:.0e})",
            f"{encoder} or its adapter mixes the items of a batch; change the class_path of {key}.encoder",
        )
        ratio = float(scale_ratio(*alone[0], byte_rms))
        yield verdict(
            f"{name}: scale",
            1 / MAX_SCALE <= ratio <= MAX_SCALE,
            f"slots are {ratio:.3f} times as large as byte embeddings (1 is best)",
            f"the adapter must end in a calibrated norm: change {key}.adapter, or {key}.weights if they are "
            "of another backbone",
        )


def _padding(
    check: str,
    key: str,
    module: ModalityModule,
    interface: MediaInterface,
    items: list[Tensor],
    alone: list[Slots],
) -> Finding:
    if items[0].shape == items[1].shape:
        return Finding(check, "ok", f"every item becomes {list(items[0].shape)}, so nothing is padded")
    if len(interface.preprocessor.group(items)) > 1:
        return Finding(check, "ok", "items of unequal sizes never share a batch")
    together = _slots(module, interface, items)
    worst = max(_difference(together, row, single) for row, single in enumerate(alone))
    encoder = type(module.encoder).__name__
    return verdict(
        check,
        worst <= TOLERANCE,
        f"a padded item differs from itself alone by {worst:.1e} (at most {TOLERANCE:.0e})",
        f"{encoder} lets padding into valid features: set `pads` to False in its preprocessor, or give {key}.encoder "
        "another class_path",
    )


def _slots(module: ModalityModule, interface: MediaInterface, items: list[Tensor]) -> Slots:
    return module(*interface.preprocessor.collate(items))


def _difference(batch: Slots, row: int, single: Slots) -> float:
    """Return the largest difference between a row's valid slots and the single item's, relative to their RMS."""
    found, expected = batch[0][row][batch[1][row]], single[0][0][single[1][0]]
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.float().square().mean().sqrt().clamp(min=1e-9)
    return float((found - expected).abs().max() / scale)
