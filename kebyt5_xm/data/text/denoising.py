"""Span denoising: pure functions of (chunk, seed, index), vectorised over a batch.

Shapes: n examples, k spans an example. `inputs` is a chunk with each span replaced by one sentinel; `targets`
is each sentinel followed by the bytes that it replaced.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kebyt5_xm.data.text.spans import (
    MARGINS,
    Boundaries,
    Margins,
    draw_segments,
    make_run_mask,
    move_to_characters,
)
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.vocabulary import (
    BYTE_OFFSET,
    EOS_ID,
    MAX_SENTINELS,
    PAD_ID,
    Sentinels,
    as_ids,
    decode_bytes,
    sentinel_ids,
)


@dataclass(frozen=True)
class SpanDenoising:
    """T5's span corruption on bytes: random spans of a chunk become sentinels, and the model predicts the spans.

    The defaults are ByT5's (arXiv 2105.13626, section 3.1; google-research/byt5 `tasks.py`); lengths and the
    distribution of spans are those of `random_spans_helper` and `random_spans_noise_mask` in t5's
    `preprocessors.py`.

    - `inputs_length`: ids of `inputs`, including the end-of-sequence id.
    - `noise_density`: the share of bytes removed.
    - `mean_noise_span_length`: in bytes.
    - `sentinels`: the convention, see `vocabulary.Sentinels`.
    - `boundaries`: `byte` cuts anywhere and has exact lengths. `character` never cuts inside a character: spans of
      at least 4 bytes, at least 7 apart, move to the starts of characters (`spans.move_to_characters`). The number of
      removed bytes then varies by -1 to +2, so `inputs_length` and `targets_length` are maxima, and the rest is PAD.
      On any data every span and every gap holds at least one byte.

    Raises UserError if nothing would be removed or kept, and if there are more spans than sentinels.
    """

    inputs_length: int = 1024
    noise_density: float = 0.15
    mean_noise_span_length: float = 20.0
    sentinels: Sentinels = "descending"
    boundaries: Boundaries = "byte"

    def __post_init__(self) -> None:
        for name, known in (("sentinels", MAX_SENTINELS), ("boundaries", MARGINS)):
            if (value := getattr(self, name)) not in known:
                raise UserError(
                    f"found {name} '{value}', expected one of {list(known)}{did_you_mean(value, known)}"
                )
        if self.inputs_length < 3:
            raise UserError(f"found inputs_length {self.inputs_length}, expected at least 3 ids")
        if not 0 < self.noise_density < 1:
            raise UserError(f"found noise_density {self.noise_density}, expected a share, e.g. 0.15")
        if not 1 <= self.mean_noise_span_length < math.inf:
            raise UserError(
                f"found mean_noise_span_length {self.mean_noise_span_length}, expected 1 byte or more"
            )
        safe = MAX_SENTINELS[self.sentinels]
        if self.num_spans > safe:
            remedy = "sentinels: extra_id, " if self.num_spans <= MAX_SENTINELS["extra_id"] else ""
            raise UserError(
                f"found {self.num_spans} spans an example at inputs_length {self.inputs_length}, expected at "
                f"most {safe}, the number of {self.sentinels} sentinels that no text contains; "
                f"use {remedy}a larger mean_noise_span_length or a shorter inputs_length"
            )
        min_noise, min_kept = (self.num_spans * margin for margin in self._margins[:2])
        num_kept = self.chunk_length - self.num_noise
        if self.num_noise < min_noise or num_kept < min_kept:
            raise UserError(
                f"found {self.num_noise} bytes to remove and {num_kept} to keep in {self.num_spans} spans, "
                f"expected at least {min_noise} and {min_kept} with boundaries: {self.boundaries}; "
                "use a larger mean_noise_span_length, another noise_density or a longer inputs_length"
            )

    @cached_property
    def chunk_length(self) -> int:
        """The raw bytes of one example: the largest number whose inputs always fit `inputs_length`."""

        def max_inputs(chunk_length: int) -> int:
            num_noise, num_spans = self._counts(chunk_length)
            return chunk_length - num_noise - self._margins.min_surplus + num_spans + 1

        upper_bound = math.ceil((self.inputs_length + 1) / (1 - self.noise_density)) + 2
        return bisect_right(range(upper_bound), self.inputs_length, lo=2, key=max_inputs) - 1

    @property
    def num_noise(self) -> int:
        """Bytes removed from a chunk: exact on byte boundaries, within -1 to +2 on character boundaries."""
        return self._counts(self.chunk_length)[0]

    @property
    def num_spans(self) -> int:
        """k, the spans and the sentinels of every example."""
        return self._counts(self.chunk_length)[1]

    @property
    def targets_length(self) -> int:
        """Ids of `targets`, including sentinels and end of sequence: a maximum on character boundaries."""
        return self.num_noise + self._margins.max_surplus + self.num_spans + 1

    def corrupt(
        self, chunks: NDArray[np.uint8], seed: int, index: NDArray[np.integer]
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return (inputs [n, inputs_length], targets [n, targets_length]) of chunks [n, chunk_length].

        `index` [n] numbers the examples of a run: an example depends on its chunk, `seed` and its own index, not on
        the batch. Both results end with EOS, followed by PAD on character boundaries.

        Any bytes are allowed. The bytes from 0xF5 on, which UTF-8 lacks, look like descending sentinels to the model.
        """
        starts, ends = self.spans(chunks, seed, index)
        noise = ends - starts
        gaps = starts.copy()
        gaps[:, 1:] -= ends[:, :-1]

        # A row of `ids` is the chunk, EOS, and enough PAD to fill the shortest inputs and targets.
        num_rows, length = chunks.shape
        width = length + 1 + self._margins.max_surplus - self._margins.min_surplus
        ids = np.empty((num_rows, width), dtype=np.int16)
        np.add(chunks, BYTE_OFFSET, out=ids[:, :length], dtype=np.int16)
        ids[:, length] = EOS_ID
        ids[:, length + 1 :] = PAD_ID

        flat = ids.reshape(-1)
        firsts = starts + np.arange(0, num_rows * width, width)[:, None]  # [n, k] in `flat`
        sentinels = sentinel_ids(self.sentinels, self.num_spans)
        # Inputs: a sentinel replaces the first byte of its span; the rest of the span is skipped.
        first_bytes = flat[firsts]
        flat[firsts] = sentinels
        inputs = ids[make_run_mask(gaps + 1, noise - 1, self.inputs_length, width)]
        # Targets: a sentinel replaces the byte before its span; the rest of the gap is skipped.
        flat[firsts] = first_bytes
        flat[firsts - 1] = sentinels
        targets = ids[make_run_mask(noise + 1, gaps - 1, self.targets_length, width, skip_first=True)]
        return inputs.reshape(num_rows, self.inputs_length), targets.reshape(num_rows, self.targets_length)

    def spans(
        self, chunks: NDArray[np.uint8], seed: int, index: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (starts [n, k], ends [n, k]): the offsets of the removed spans in each chunk.

        Gaps and spans alternate. A gap comes first, and the last span ends at the chunk's end. The lengths of the
        gaps and of the spans are uniformly random segmentations, each part at least one byte.
        """
        if chunks.dtype != np.uint8 or chunks.ndim != 2 or chunks.shape[1] != self.chunk_length:
            raise UserError(
                f"found chunks of {chunks.dtype} {chunks.shape}, expected uint8 (n, {self.chunk_length}); "
                "read chunks of chunk_length bytes"
            )
        if np.shape(index) != chunks.shape[:1]:
            raise UserError(
                f"found index of shape {np.shape(index)}, expected {chunks.shape[:1]}; give one per chunk"
            )
        totals = np.array([self.chunk_length - self.num_noise, self.num_noise])
        least = np.array([self._margins.min_gap, self._margins.min_span])
        lengths = draw_segments(totals, least, self.num_spans, seed, index)  # [n, 2, k]
        ends = lengths.sum(axis=1).cumsum(axis=1)
        starts = ends - lengths[:, 1]
        return move_to_characters(chunks, starts, ends) if self.boundaries == "character" else (starts, ends)

    def target_lengths(
        self, chunks: NDArray[np.uint8], seed: int, index: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Return [n]: the number of ids in each row of `targets` without PAD. On byte boundaries no chunk is read."""
        if self.boundaries == "byte":
            return np.full(len(index), self.targets_length, dtype=np.int64)
        starts, ends = self.spans(chunks, seed, index)
        return (ends - starts).sum(axis=1) + self.num_spans + 1

    def restore(self, inputs: ArrayLike, targets: ArrayLike) -> bytes:
        """Return the chunk from which one example was made.

        Exact for every chunk without the bytes 0xF5 to 0xFF, which UTF-8 lacks; with `extra_id` for every chunk.
        Raises UserError if the sentinels are not those of one example.
        """
        expected = sentinel_ids(self.sentinels, self.num_spans)
        parts = []
        for ids in (_cut_at_eos(inputs), _cut_at_eos(targets)):
            places = np.flatnonzero(np.isin(ids, expected))
            if not np.array_equal(ids[places], expected):
                raise UserError(
                    f"found the sentinels {ids[places].tolist()}, expected {expected.tolist()}; "
                    "give inputs and targets of one example, made with these settings from UTF-8"
                )
            first, *rest = np.split(ids, places)
            parts.append([decode_bytes(first), *(decode_bytes(piece[1:]) for piece in rest)])
        gaps, noise = parts  # k + 1 each: the last gap is empty, and so is the text before the first span
        return b"".join(span + gap for span, gap in zip(noise, gaps, strict=True))

    @property
    def _margins(self) -> Margins:
        return MARGINS[self.boundaries]

    def _counts(self, chunk_length: int) -> tuple[int, int]:
        """Return (bytes removed, spans) of a chunk, both at least 1, as in `random_spans_noise_mask`."""
        num_noise = min(max(round(chunk_length * self.noise_density), 1), chunk_length - 1)
        return num_noise, max(round(num_noise / self.mean_noise_span_length), 1)


def _cut_at_eos(ids: ArrayLike) -> NDArray[np.integer]:
    sequence = as_ids(ids)
    ends = np.flatnonzero(sequence == EOS_ID)
    return sequence[: ends[0]] if ends.size else sequence
