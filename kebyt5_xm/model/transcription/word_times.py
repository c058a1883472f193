"""The words of answers to recordings, with the times at which they are said."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from kebyt5_xm.encoder import AudioHeader
from kebyt5_xm.model.cross_attention import cross_attention
from kebyt5_xm.model.decoding.int8 import Int8Decoder
from kebyt5_xm.model.delete_gate import input_weights, states_and_mask
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.model.network import CrossModalNetwork
from kebyt5_xm.model.processor import CrossModalProcessor, Processed
from kebyt5_xm.model.transcription.alignment import align_words
from kebyt5_xm.model.transcription.transcript import TimedWord
from kebyt5_xm.model.transcription.windows import Window
from kebyt5_xm.vocabulary import BYTE_OFFSET


def time_words(
    model: CrossModalNetwork,
    processor: CrossModalProcessor,
    inputs: Processed,
    answers: Sequence[Hypothesis],
    windows: Sequence[Window],
) -> list[list[TimedWord]]:
    """Return the words of each answer, with times in the whole recording.

    Each row of `inputs` has one recording: the window of the same place. Where a model does not tell where it looks
    (slots of a resampler, a decoder in int8), the level of the sound alone decides, and times are coarser.
    """
    attention = _attention(model, inputs, answers)
    return [
        _timed(answer, weights, _extent(processor, modality, window), window)
        for answer, (modality, weights), window in zip(answers, attention, windows, strict=True)
    ]


def _attention(
    model: CrossModalNetwork, inputs: Processed, answers: Sequence[Hypothesis]
) -> list[tuple[str, NDArray[np.float32] | None]]:
    """Return each recording's modality, and how much each byte of its answer looked at each of its slots [T, S]."""
    slots = {
        row: (group.modality, start, count)
        for group in inputs["media"]
        for row, start, count in zip(
            group.row.tolist(), group.start.tolist(), group.count.tolist(), strict=True
        )
    }
    if isinstance(model.backbone.decoder, Int8Decoder):
        return [(slots[row][0], None) for row in range(len(answers))]
    with torch.no_grad():
        encoded = model.encode(**inputs)
    states, mask = states_and_mask(encoded, inputs["attention_mask"])
    ids = [torch.tensor([byte + BYTE_OFFSET for byte in answer.raw], dtype=torch.long) for answer in answers]
    found = []
    for row, answer_ids in enumerate(ids):  # one by one: all heads of all rows together would be large
        modality, start, count = slots[row]
        weights = np.zeros((0, count), dtype=np.float32)
        if len(answer_ids):
            own = slice(row, row + 1)
            own_mask = None if mask is None else mask[own]
            heads = cross_attention(model, states[own], own_mask, answer_ids[None].to(states.device))
            heads = input_weights(encoded, heads, own)[0, ..., start : start + count]
            heads = heads / heads.sum(-1, keepdim=True).clamp(min=1e-9)
            weights = heads.mean(dim=(0, 1)).cpu().numpy()
        found.append((modality, weights))
    return found


def _extent(processor: CrossModalProcessor, modality: str, window: Window) -> tuple[int, int, float] | None:
    """Return the first slot that stands for a time, how many do, and the share of the window that each covers."""
    grid = processor.interfaces[modality].slot_grid(AudioHeader(len(window.samples), window.sample_rate))
    return None if grid is None or len(grid.shape) != 1 else (grid.first, grid.shape[0], grid.extents[0])


def _timed(
    answer: Hypothesis,
    weights: NDArray[np.float32] | None,
    extent: tuple[int, int, float] | None,
    window: Window,
) -> list[TimedWord]:
    starts = list(accumulate((len(character.encode()) for character in answer.text), initial=0))
    spans = [slice(start, stop) for start, stop in pairwise(starts)]
    words = answer.words
    characters = [spans[word.start : word.end] for word in words]
    if weights is None or extent is None:
        looked, share = np.ones((len(answer.raw), 1), dtype=np.float32), 1.0
    else:
        first, count, share = extent
        looked = weights[:, first : first + count]
    times = align_words(characters, looked, share, window.samples, window.sample_rate)
    return [
        TimedWord(
            word.text,
            window.start_seconds + start,
            min(window.start_seconds + stop, window.stop_seconds),  # the last frame may be cut short
            word.confidence,
        )
        for word, (start, stop) in zip(words, times, strict=True)
    ]
