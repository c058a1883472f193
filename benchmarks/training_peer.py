"""Contestants of `benchmarks.training`: transformers' T5, with the data loading and the defaults of its Trainer.

python -m benchmarks.training_peer FOLDER {eager,sdpa} {random,grouped,demo}

The batches are transformers': 16 random texts, or 16 of similar length from its `LengthGroupedSampler`; collated by
its `DataCollatorForSeq2Seq`. The optimizer is its Trainer's: fused AdamW after clipping by a norm of 1. The loop is
plain, so the Trainer's own overhead is left out. In the demo, a per-example collator makes the spans.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import ByT5Tokenizer, DataCollatorForSeq2Seq

from benchmarks.denoising import collate
from benchmarks.peers import plain_t5
from benchmarks.training_data import Sizes, demo_batch_size, demo_objective, demo_shape, read_examples
from benchmarks.turns import ROOT, Turns
from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.model.backbone import Backbone

BATCHES = ("random", "grouped", "demo")


def command(folder: Path, attention: str, batches: str) -> list[str]:
    """Return the arguments of Python that train on the data in `folder`."""
    return ["-m", "benchmarks.training_peer", str(folder), attention, batches]


def main(folder: Path, attention: str, batches: str) -> None:
    """Train until the benchmark is over."""
    sizes = Sizes.read(folder)
    shape = demo_shape() if batches == "demo" else sizes.shape
    torch.manual_seed(0)
    model = plain_t5(Backbone(shape=shape).config(), attention)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, fused=True)
    if batches == "demo":
        loader, turns = demo_loader(folder), Turns(sizes.demo_steps)
    else:
        loader = mixed_loader(read_examples(folder, sizes.target), sizes.rows, shuffle=batches == "random")
        # Batches of similar length differ in size: a turn takes all of them. Random ones are slow and all alike.
        turns = Turns(len(loader)) if batches == "grouped" else Turns(max(1, len(loader) // 2))
    for batch in _forever(loader):
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        turns.step_done(num_ids(batch))


def num_ids(batch: Mapping[str, Tensor]) -> int:
    """Return the number of input and target ids without padding."""
    mask = batch.get("attention_mask")
    inputs = batch["input_ids"].numel() if mask is None else int(mask.sum())
    return inputs + int((batch["labels"] != IGNORE_INDEX).sum())


def mixed_loader(examples: list[dict[str, list[int]]], rows: int, shuffle: bool) -> DataLoader:
    """Return batches of random texts, or those of similar length that `LengthGroupedSampler` gave."""
    return DataLoader(
        examples,  # pyright: ignore[reportArgumentType] - anything with a length and items works
        batch_size=rows,
        shuffle=shuffle,
        collate_fn=DataCollatorForSeq2Seq(ByT5Tokenizer()),
    )


def demo_loader(folder: Path) -> DataLoader:
    """Return batches of denoising, from random chunks of the demo's store."""
    objective, rng = demo_objective(), np.random.default_rng(0)
    text = np.frombuffer(next((folder / "store").glob("*.bytes")).read_bytes(), dtype=np.uint8)
    chunks = text[: len(text) // objective.chunk_length * objective.chunk_length]

    def denoise(rows: list[np.ndarray]) -> dict[str, Tensor]:
        inputs, labels = collate(np.stack(rows), objective, rng)
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}

    return DataLoader(
        chunks.reshape(-1, objective.chunk_length),  # pyright: ignore[reportArgumentType]
        batch_size=demo_batch_size(),
        shuffle=True,
        drop_last=True,
        collate_fn=denoise,
    )


def _forever(loader: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    while True:
        yield from loader


if __name__ == "__main__":
    assert Path.cwd() == ROOT
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
