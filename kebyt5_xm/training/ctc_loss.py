"""The CTC loss of transcripts, which is trained and logged beside the model's own.

Letters in shapes: N recordings, M slots of one (padded), K frames of one (padded), C classes.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.nn import functional as F

from kebyt5_xm.data.batch import IGNORE_INDEX, Batch
from kebyt5_xm.model.ctc import BLANK, CTC
from kebyt5_xm.model.outputs import Outputs
from kebyt5_xm.vocabulary import BYTE_OFFSET


@dataclass(frozen=True)
class Transcripts:
    """The transcripts of a micro-batch that one head learns, and where their recordings are.

    `positions` [N, M] are flat positions in the encoder's states; without transcripts, that of one slot, so that the
    head runs on every rank.
    """

    positions: Tensor
    targets: list[list[int]]
    frames: list[int]
    too_short: "list[TooShort]"


class TooShort(NamedTuple):
    """An example whose recording has fewer frames than its transcript needs: its place in `Inputs.extents`."""

    number: int
    frames: int
    needed: int


def frames_needed(target: list[int]) -> int:
    """Return the fewest frames in which CTC can write a target: a blank must part a byte from its like."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def find_transcripts(batch: Batch, modality: str, parts: frozenset[int], frames_per_slot: int) -> Transcripts:
    """Return the transcripts of the counted examples of `parts` that have exactly one medium of `modality`.

    `parts` are numbers of the mixture's parts. On a GPU this waits for the batch, so call it before the model.
    """
    extents, length = batch.inputs.extents, batch.inputs.input_ids.shape[1]
    assert extents is not None
    groups = [group for group in batch.inputs.media if group.modality == modality]
    media = np.asarray(
        [
            number
            for group in groups
            for number in zip(group.row.tolist(), group.start.tolist(), group.count.tolist(), strict=True)
        ],
        dtype=np.int64,
    ).reshape(-1, 3)
    # Extents are in the order of positions, so the last one that begins at or before a medium is its example.
    place = media[:, 0] * length + media[:, 1]
    owner = np.searchsorted(extents[:, 0] * length + extents[:, 1], place, side="right") - 1
    in_example = Counter(owner.tolist())
    labels, part_of = (batch.labels.cpu().numpy(), batch.part.cpu().numpy()) if groups else (None, None)
    found, targets, frames, too_short = [], [], [], []
    for first, count, number in zip(place.tolist(), media[:, 2].tolist(), owner.tolist(), strict=True):
        assert labels is not None
        assert part_of is not None
        row, _, _, start, stop = extents[number]
        part = part_of[row] if part_of.ndim == 1 else part_of[row, start]
        target = (labels[row, start : stop - 1] - BYTE_OFFSET).tolist()  # without the end of sequence
        if in_example[number] > 1 or int(part) not in parts or labels[row, stop - 1] == IGNORE_INDEX:
            continue
        if (needed := frames_needed(target)) > count * frames_per_slot:
            too_short.append(TooShort(number, count * frames_per_slot, needed))
            continue
        found.append((first, count))
        targets.append(target)
        frames.append(count * frames_per_slot)
    starts, counts = np.asarray(found or [(0, 1)], dtype=np.int64).T
    offsets = np.minimum(np.arange(counts.max()), counts[:, None] - 1)  # padding repeats the last slot
    positions = torch.from_numpy(starts[:, None] + offsets).to(batch.labels.device)
    return Transcripts(positions, targets, frames, too_short)


def ctc_losses(logits: Tensor, transcripts: Transcripts) -> Tensor:
    """Return the negative log-likelihoods [N] of transcripts in nats, for logits [N, K, C]; zero without any."""
    if not transcripts.targets:
        return logits.flatten()[:1].float() * 0.0
    flat = [byte for target in transcripts.targets for byte in target]
    return F.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor(flat, dtype=torch.int64, device=logits.device),
        torch.tensor(transcripts.frames),
        torch.tensor([len(target) for target in transcripts.targets]),
        blank=BLANK,
        reduction="none",
    )


class CTCLoss:
    """The CTC losses of one optimizer step, one micro-batch after another.

    Args:
        heads: modality -> its options; its head is the model's of the same name.
        parts: modality -> the numbers of the parts whose targets are transcripts.
        device: the model's.
    """

    def __init__(
        self, heads: Mapping[str, CTC], parts: Mapping[str, frozenset[int]], device: torch.device
    ) -> None:
        self.heads, self.parts = heads, parts
        self._nats = torch.zeros((), device=device)
        self._counts = torch.zeros(1 + 2 * len(heads), dtype=torch.int64)  # bytes; (too short, all) of each
        self.transcripts: dict[str, Transcripts] = {}

    def find(self, batch: Batch) -> dict[str, Tensor] | None:
        """Find a micro-batch's transcripts; return modality -> the positions of their slots, None without heads."""
        self.transcripts = {
            name: find_transcripts(batch, name, self.parts[name], head.frames_per_slot)
            for name, head in self.heads.items()
        }
        for number, found in enumerate(self.transcripts.values()):
            short = len(found.too_short)
            self._counts[0] += sum(map(len, found.targets))
            self._counts[1 + 2 * number :][:2] += torch.tensor([short, short + len(found.targets)])
        return {name: found.positions for name, found in self.transcripts.items()} or None

    def add(self, output: Outputs, step: int, factor: float) -> Tensor | None:
        """Return factor x the weighted sum of the losses of the micro-batch in `find`; None without heads.

        If that is not finite, its gradient is NaN, so the step is not taken.
        """
        if output.ctc_logits is None:
            return None
        total = torch.zeros((), device=self._nats.device)
        for name, logits in output.ctc_logits.items():
            nats = ctc_losses(logits, self.transcripts[name]).sum()
            self._nats += nats.detach()
            total = total + nats * (factor * self.heads[name].weight_at(step))
        return total * torch.where(torch.isfinite(total.detach()), 1.0, math.nan)

    def metrics(self, strategy: Strategy) -> dict[str, float]:
        """Return the step's loss of a byte in nats, and the shares of recordings that are too short, over the ranks.

        Every rank must call it.
        """
        if not self.heads:
            return {}
        counts = self._counts.to(self._nats)  # exact in fp32: a step has far fewer than 2^24 bytes
        summed = strategy.reduce(torch.cat([self._nats[None], counts]), reduce_op="sum")
        assert isinstance(summed, Tensor)
        nats, num_bytes, *counts = summed.tolist()
        found = {"train/loss/ctc": nats / num_bytes} if num_bytes else {}
        for name, short, of_all in zip(self.heads, counts[::2], counts[1::2], strict=True):
            if of_all:
                found[f"ctc/too_short/{name}"] = short / of_all
        return found
