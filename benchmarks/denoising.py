"""Examples a second of `SpanDenoising.corrupt` on one core, and of a collator that works example by example.

OMP_NUM_THREADS=1 python -m benchmarks.denoising

1193 raw bytes become 1024 inputs and 189 targets, as int16. The peer is the common form of such a collator:
NumPy, one example at a time, a random segmentation by permutation, sentinels by cumulative sums, int64.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import measure_seconds, write_report
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.vocabulary import BYTE_OFFSET, EOS_ID

NUM_EXAMPLES = 4096
BATCH_SIZES = (16, 64, 256, 1024)
DEMANDED_EXAMPLES_PER_S = 20_000
FIRST_SENTINEL = 258


def segment_lengths(rng: np.random.Generator, num_items: int, num_segments: int) -> NDArray[np.int64]:
    is_cut = rng.permutation(np.arange(num_items - 1) < num_segments - 1)
    return np.bincount(np.concatenate([[0], np.cumsum(is_cut)]))


def replace_runs(ids: NDArray[np.int64], is_replaced: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Replace each run by one sentinel, and append EOS."""
    is_first = is_replaced & ~np.concatenate([[False], is_replaced[:-1]])
    with_sentinels = np.where(is_first, FIRST_SENTINEL + 1 - np.cumsum(is_first), ids)
    return np.append(with_sentinels[~is_replaced | is_first], EOS_ID)


def collate(chunks: NDArray[np.uint8], objective: SpanDenoising, rng: np.random.Generator) -> tuple:
    """The peer: (inputs [n, 1024], targets [n, 189]) of chunks [n, 1193], one example at a time."""
    inputs, targets = [], []
    num_clean = objective.chunk_length - objective.num_noise
    for chunk in chunks:
        ids = chunk.astype(np.int64) + BYTE_OFFSET
        gaps = segment_lengths(rng, num_clean, objective.num_spans)
        spans = segment_lengths(rng, objective.num_noise, objective.num_spans)
        lengths = np.stack([gaps, spans], axis=1).reshape(-1)
        is_noise = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        inputs.append(replace_runs(ids, is_noise))
        targets.append(replace_runs(ids, ~is_noise))
    return np.stack(inputs), np.stack(targets)


def main() -> None:
    text = "바이트 단위 모델, a model of bytes; 字节级模型、バイト列をそのまま扱う。👍 ".encode() * 4096
    offsets = np.random.default_rng(0).integers(0, len(text) - 1193, NUM_EXAMPLES)
    chunks = np.frombuffer(text, dtype=np.uint8)[offsets[:, None] + np.arange(1193)]
    index = np.arange(NUM_EXAMPLES, dtype=np.uint64)
    by_byte, by_character = SpanDenoising(), SpanDenoising(boundaries="character")

    def ours(objective: SpanDenoising, batch_size: int) -> None:
        for begin in range(0, NUM_EXAMPLES, batch_size):
            batch = chunks[begin : begin + batch_size, : objective.chunk_length]
            objective.corrupt(batch, 0, index[begin : begin + batch_size])

    few = chunks[: NUM_EXAMPLES // 8]
    inputs, targets = collate(few[:3], by_byte, np.random.default_rng(0))
    assert [by_byte.restore(i, t) for i, t in zip(inputs, targets, strict=True)] == [
        c.tobytes() for c in few[:3]
    ]
    times = measure_seconds(
        {
            "peer": lambda: collate(few, by_byte, np.random.default_rng(0)),
            **{f"byte {size}": lambda size=size: ours(by_byte, size) for size in BATCH_SIZES},
            **{f"character {size}": lambda size=size: ours(by_character, size) for size in BATCH_SIZES},
        }
    )
    peer = len(few) / times["peer"]
    figures = {
        f"{boundaries}_boundaries": {
            f"examples_per_s_at_batch_{size}": NUM_EXAMPLES / times[f"{boundaries} {size}"]
            for size in BATCH_SIZES
        }
        for boundaries in ("byte", "character")
    }
    at_64 = figures["byte_boundaries"]["examples_per_s_at_batch_64"]
    write_report(
        "denoising",
        {
            "inputs_length": by_byte.inputs_length,
            "chunk_bytes": by_byte.chunk_length,
            **figures,
            "collator_examples_per_s": peer,
            "ratio_byte_batch_64_to_collator": at_64 / peer,
        },
        demanded={
            f"{boundaries}_boundaries.examples_per_s_at_batch_64": DEMANDED_EXAMPLES_PER_S
            for boundaries in ("byte", "character")
        },
    )


if __name__ == "__main__":
    main()
