"""The batch: what one micro-batch is on its way from a data worker to the model.

Ids travel as int16 (a byte id needs nine bits), a quarter of what int64 would cost between processes and over
the bus; `Batch.to` widens them on the device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kebyt5_xm.data.source import Example
from kebyt5_xm.encoder import Preprocessor
from kebyt5_xm.splice import MediaGroup
from kebyt5_xm.vocabulary import PAD_ID

IGNORE_INDEX = -100
"""The label of a position without a target: PyTorch's and transformers' own convention."""


@dataclass
class Batch:
    """One micro-batch. Shape suffixes: B rows, S encoder positions, T decoder positions.

    `num_targets` is the plan's count of target ids in the whole global batch of the step: the loss is
    normalised by it. `next_step` is the first step that has not been trained on once this batch is done.
    """

    input_ids: Tensor  # [B, S] byte ids, padded with PAD
    lengths: Tensor  # [B] encoder positions in use
    labels: Tensor  # [B, T] byte ids, IGNORE_INDEX where there is no target
    part: Tensor  # [B] index of the row's part in the mixture
    full: bool  # no row is padded, so no mask is needed
    num_targets: int
    num_ids: int  # input and target ids of this micro-batch, padding left out
    step: int
    next_step: int
    media: list[MediaGroup] = field(default_factory=list)  # one entry for every encoder call

    def attention_mask(self) -> Tensor | None:
        """Return the encoder's mask [B, S], or None when every row is full (the faster attention path)."""
        if self.full:
            return None
        return torch.arange(self.input_ids.shape[1], device=self.lengths.device) < self.lengths[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """Return the batch on `device`, ids widened to int64."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(device, non_blocking=non_blocking)
            return moved if tensor.is_floating_point() else moved.long()

        return self._map(move)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {k: function(v) for k, v in tensors.items() if isinstance(v, Tensor)}
        return replace(self, **changed, media=[group.map(function) for group in self.media])


def collate(
    examples: list[Example],
    part: NDArray[np.int64],
    *,
    preprocessors: Mapping[str, Preprocessor],
    num_targets: int,
    step: int,
    next_step: int,
) -> Batch:
    """Pad `examples` to the longest among them. Nothing is ever cut here.

    Examples that are not `counted` get no label: they keep shapes and ranks in step and enter no loss.
    """
    lengths = np.asarray([len(example.input_ids) for example in examples])
    target_lengths = np.asarray([len(example.target_ids) for example in examples])
    input_ids = np.full((len(examples), lengths.max()), PAD_ID, dtype=np.int16)
    labels = np.full((len(examples), target_lengths.max()), IGNORE_INDEX, dtype=np.int16)
    for n, example in enumerate(examples):
        input_ids[n, : lengths[n]] = example.input_ids
        if example.counted:
            labels[n, : target_lengths[n]] = example.target_ids
    counted = np.asarray([example.counted for example in examples])
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        lengths=torch.from_numpy(lengths.astype(np.int32)),
        labels=torch.from_numpy(labels),
        part=torch.from_numpy(part.astype(np.int16)),
        full=bool((lengths == input_ids.shape[1]).all()),
        num_targets=num_targets,
        num_ids=int((lengths + target_lengths)[counted].sum()),
        step=step,
        next_step=next_step,
        media=_group_media(examples, preprocessors),
    )


def _group_media(examples: list[Example], preprocessors: Mapping[str, Preprocessor]) -> list[MediaGroup]:
    """Collect the media of a micro-batch, one group for each encoder call that its preprocessor asks for."""
    groups = []
    for modality, preprocessor in preprocessors.items():
        items = [
            (n, m) for n, example in enumerate(examples) for m in example.media if m.modality == modality
        ]
        for members in preprocessor.group([medium.prepared for _, medium in items]):
            chosen = [items[member] for member in members]
            prepared, lengths = preprocessor.collate([medium.prepared for _, medium in chosen])
            groups.append(
                MediaGroup(
                    modality,
                    prepared,
                    lengths,
                    row=torch.tensor([row for row, _ in chosen]),
                    start=torch.tensor([medium.start for _, medium in chosen]),
                    count=torch.tensor([medium.count for _, medium in chosen]),
                )
            )
    return groups
