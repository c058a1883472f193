"""Mixed lengths: what padding costs, and what global batches by length and packing make of it.

OMP_NUM_THREADS=2 python -m benchmarks.loader

A mixture of short and long texts (30 to 1,500 bytes, log-uniform, as captions beside documents are) goes through the
loader in one process, and trains a tiny T5. Useful bytes are input and target ids, padding left out.
"""

import json
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.report import write
from benchmarks.training import TINY
from kebyt5_xm.backbone import Backbone
from kebyt5_xm.configuration import CrossModalT5Config
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loader import Loader, Mixture, TrainingMicroBatches, TrainingOrders
from kebyt5_xm.data.manifest_source import Manifest
from kebyt5_xm.data.plan import Plan
from kebyt5_xm.data.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.model import CrossModalT5, token_losses

NUM_ROWS = 20_000
SHORTEST, LONGEST = 30, 1500
TARGET_BYTES = 40
ROW_LENGTH = 1536
MICRO_LENGTH = 8 * ROW_LENGTH
LOADED, TRAINED = 200, 6
TURNS = 3


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        kinds = steps(Path(folder))
        figures: dict[str, Any] = {name: loading(kind, mixture) for name, (kind, mixture) in kinds.items()}
        taken = dict.fromkeys(kinds, 0.0)
        model = tiny()
        batches = {
            name: list(islice(loader(kind, mixture), TRAINED)) for name, (kind, mixture) in kinds.items()
        }
        for _ in range(TURNS):  # in turns, so that a change of load falls on all alike
            for name, chosen in batches.items():
                taken[name] = max(taken[name], useful_bytes_per_s(model, chosen))
        for name, rate in taken.items():
            figures[name]["trained_useful_bytes_per_s"] = rate
    figures["ratio_budgeted_to_padded"] = taken["budgeted"] / taken["padded"]
    figures["ratio_packed_to_padded"] = taken["packed"] / taken["padded"]
    write("loader", figures)


def steps(folder: Path) -> dict[str, tuple[Steps, Mixture]]:
    """Return the three ways to cut the same plan."""
    numbers = np.random.default_rng(0)
    lengths = np.exp(numbers.uniform(np.log(SHORTEST), np.log(LONGEST), NUM_ROWS)).astype(int)
    path = folder / "rows.jsonl"
    rows = (json.dumps({"text": "x" * int(length), "answer": "y" * TARGET_BYTES}) for length in lengths)
    path.write_text("\n".join(rows) + "\n")
    source = Manifest(str(path), prompt="{text}", target="{answer}", max_source_length=LONGEST)
    source.connect({})
    mixture = Mixture([source], [0], [0], seed=0)
    plan = Plan(tuple(source.parts()), (1.0,), seed=0)
    return {
        "padded": (CountedSteps(plan, mixture.lengths, 16, 4), mixture),
        "budgeted": (BudgetedSteps(plan, mixture.lengths, Budget(4 * MICRO_LENGTH, MICRO_LENGTH)), mixture),
        "packed": (
            BudgetedSteps(plan, mixture.lengths, Budget(4 * MICRO_LENGTH, MICRO_LENGTH, ROW_LENGTH)),
            mixture,
        ),
    }


def loader(kind: Steps, mixture: Mixture) -> Iterable[Batch]:
    orders = TrainingOrders(kind, rank=0, world_size=1, step=0, start=0, num_steps=10**6)
    return Loader(TrainingMicroBatches(mixture), orders, 10**6, num_workers=0, pin_memory=False)


def loading(kind: Steps, mixture: Mixture) -> dict[str, float]:
    """Return how fast micro-batches come in this process, their padding, and the memory it took."""
    before = psutil.Process().memory_info().rss
    useful = positions = examples = 0
    started = time.perf_counter()
    for batch in islice(loader(kind, mixture), LOADED):
        useful += batch.num_ids
        positions += batch.input_ids.numel() + batch.labels.numel()
        examples += len(batch.part) if batch.packing is None else int(batch.packing.segments.amax(1).sum())
    seconds = time.perf_counter() - started
    return {
        "loaded_examples_per_s": examples / seconds,
        "loaded_useful_bytes_per_s": useful / seconds,
        "padding_share": 1 - useful / positions,
        "resident_growth_mb": (psutil.Process().memory_info().rss - before) / 1e6,
    }


def tiny() -> CrossModalT5:
    backbone = Backbone(shape=TINY).build()
    return CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {}).train()


def useful_bytes_per_s(model: CrossModalT5, batches: list[Batch]) -> float:
    """Return the useful bytes of forward and backward passes over `batches` in a second."""
    started = time.perf_counter()
    for batch in (batch.to("cpu") for batch in batches):
        logits = model(
            input_ids=batch.input_ids,
            attention_mask=None if batch.packing else batch.attention_mask(),
            decoder_input_ids=(batch.packing or model).shift_right(batch.labels),
            packing=batch.packing,
            use_cache=False,
        ).logits
        token_losses(logits, batch.labels).sum().backward()
        model.zero_grad(set_to_none=True)
    return sum(batch.num_ids for batch in batches) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
