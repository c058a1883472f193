"""The batch: one micro-batch with its position in the plan.

Ids are int16 (a byte id needs nine bits) between processes and over the bus, a quarter of int64; `Batch.to` widens
them on the device.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.data.inputs import Example, Inputs, Map, MediaGroup, Packing, Tensors
from kebyt5_xm.data.media.bad_sample import Skip
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.vocabulary import PAD_ID

IGNORE_INDEX = -100
"""The label of a position without a target, as in PyTorch and transformers."""


class Progress(NamedTuple):
    """The position of a micro-batch in the plan.

    `num_targets`: target ids in the step's whole global batch; the loss is divided by it. `next_step`: the first
    unfinished step once this batch is done. `next_index`: the first example that no finished step has drawn.
    """

    num_targets: int = 1
    step: int = 0
    next_step: int = 0
    next_index: int = 0

    @property
    def ends_step(self) -> bool:
        """Whether the micro-batch is the last of its step."""
        return self.next_step > self.step


UNPLANNED = Progress()
"""The progress of a batch outside the plan: held-out rows, inference."""


@dataclass
class Batch(Tensors):
    """One micro-batch. Letters in shapes: B rows, T decoder positions."""

    inputs: Inputs
    labels: Tensor  # [B, T] byte ids, IGNORE_INDEX where there is no target
    part: Tensor  # [B] index of the row's part in the mixture; [B, T] where rows are packed
    progress: Progress
    lengths: list[tuple[int, int]]  # numbers of input and of target ids of each counted example
    padding: dict[str, tuple[int, int]] = field(default_factory=dict)  # text, targets, NAME -> (used, total)
    drawn: dict[int, int] = field(default_factory=dict)  # part -> examples, skipped ones included
    skipped: list[tuple[int, Skip]] = field(default_factory=list)  # (part, cause)
    row: Tensor | None = None  # [B] held-out rows of a validation part, -1 for filler

    @property
    def num_ids(self) -> int:
        """Number of input and target ids of the counted examples, without padding."""
        return sum(map(sum, self.lengths))

    def map(self, function: Map, of_media: Map | None = None) -> Self:
        return replace(super().map(function), inputs=self.inputs.map(function, of_media))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return self.map(Tensor.pin_memory)


def collate_inputs(examples: Sequence[Example], interfaces: Mapping[str, MediaInterface]) -> Inputs:
    """Return examples as inputs for inference, one row each, padded to the longest."""
    part = np.zeros(len(examples), dtype=np.int64)
    return collate(examples, part, interfaces=interfaces).inputs


def collate(
    examples: Sequence[Example],
    part: NDArray[np.int64],
    *,
    interfaces: Mapping[str, MediaInterface],
    progress: Progress = UNPLANNED,
    packed_row: NDArray[np.int64] | None = None,
    skipped: Sequence[tuple[int, Skip]] = (),
) -> Batch:
    """Pad `examples` to the longest row. Nothing is cut.

    Each example is one row, or is appended to the row given by `packed_row`. Examples that are not `counted` get no
    labels: they keep shapes and ranks in step and enter no loss. Their causes are appended to `skipped`.

    `Inputs.extents` are, in the order of positions, the row of each example, the start and stop of its input in the
    row, and those of its target.
    """
    lengths = np.asarray([[len(example.input_ids), len(example.target_ids)] for example in examples])
    row = np.arange(len(examples)) if packed_row is None else packed_row
    used = np.zeros((int(row.max()) + 1, 2), dtype=np.int64)
    np.add.at(used, row, lengths)
    shape, target_shape = (len(used), used[:, 0].max()), (len(used), used[:, 1].max())
    input_ids = np.full(shape, PAD_ID, dtype=np.int16)
    labels = np.full(target_shape, IGNORE_INDEX, dtype=np.int16)
    segments, target_segments = np.zeros(shape, dtype=np.int16), np.zeros(target_shape, dtype=np.int16)
    target_part = np.zeros(target_shape, dtype=np.int16)
    first, number = (
        np.zeros_like(used),
        np.zeros(len(used), dtype=np.int64),
    )  # where each row's next example begins
    extents = np.zeros((len(examples), 5), dtype=np.int64)
    for n, example in enumerate(examples):
        r = row[n]
        (start, target_start), (end, target_end) = first[r], first[r] + lengths[n]
        input_ids[r, start:end] = example.input_ids
        if example.counted:
            labels[r, target_start:target_end] = example.target_ids
        number[r] += 1
        segments[r, start:end] = target_segments[r, target_start:target_end] = number[r]
        target_part[r, target_start:target_end] = part[n]
        extents[n], first[r] = (r, start, end, target_start, target_end), (end, target_end)
    counted = np.asarray([example.counted for example in examples])
    found = [(int(p), e.skipped) for p, e in zip(part, examples, strict=True) if e.skipped is not None]
    packing = None
    if packed_row is not None:
        packing = Packing(torch.from_numpy(segments), torch.from_numpy(target_segments))
    media = _group_media(examples, row, extents[:, 1], interfaces)
    return Batch(
        Inputs(
            torch.from_numpy(input_ids),
            torch.from_numpy(used[:, 0].astype(np.int32)),
            full=bool((used[:, 0] == input_ids.shape[1]).all()),
            packing=packing,
            extents=extents[np.argsort(row, kind="stable")],
            media=media,
        ),
        torch.from_numpy(labels),
        torch.from_numpy(part.astype(np.int16) if packing is None else target_part),
        progress,
        lengths=[(inputs, targets) for inputs, targets in lengths[counted].tolist()],
        padding={
            "text": (int(used[:, 0].sum()), input_ids.size),
            "targets": (int(used[:, 1].sum()), labels.size),
            **_media_padding(media),
        },
        drawn=Counter([*part.tolist(), *(p for p, _ in skipped)]),
        skipped=[*skipped, *found],
    )


def _media_padding(media: list[MediaGroup]) -> dict[str, tuple[int, int]]:
    """Return for each modality the length of its prepared media without and with padding."""
    padding: dict[str, tuple[int, int]] = {}
    for group in media:
        used, of_all = padding.get(group.modality, (0, 0))
        length = int(group.lengths.max())
        padding[group.modality] = used + int(group.lengths.sum()), of_all + length * len(group.lengths)
    return padding


def _group_media(
    examples: Sequence[Example],
    row: NDArray[np.int64],
    starts: NDArray[np.int64],
    interfaces: Mapping[str, MediaInterface],
) -> list[MediaGroup]:
    """Collect the media of a micro-batch, one group for each encoder call."""
    groups = []
    for modality, interface in interfaces.items():
        items = [
            (n, m) for n, example in enumerate(examples) for m in example.media if m.modality == modality
        ]
        for members in interface.group([medium.prepared for _, medium in items]):
            chosen = [items[member] for member in members]
            prepared, lengths = interface.collate([medium.prepared for _, medium in chosen])
            groups.append(
                MediaGroup(
                    modality,
                    prepared,
                    lengths,
                    row=torch.tensor([int(row[n]) for n, _ in chosen]),
                    start=torch.tensor([int(starts[n]) + medium.start for n, medium in chosen]),
                    count=torch.tensor([medium.count for _, medium in chosen]),
                    encoded=interface.cache is not None,
                )
            )
    return groups
