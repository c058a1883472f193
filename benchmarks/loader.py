"""Mixed lengths: what padding costs, and what global batches by length and packing make of it.

OMP_NUM_THREADS=2 python -m benchmarks.loader

A mixture of short and long texts (30 to 1,500 bytes, log-uniform, as captions beside documents are) goes through the
loader, and trains a tiny T5. Useful bytes are input and target ids, padding left out. Loading is measured in a fresh
process for each way: its rate and memory without workers, then the private memory of two workers. A data worker is
forked, so what is not private it shares.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.memory import memory_mb
from benchmarks.report import write
from benchmarks.training import TINY
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import TrainingMicroBatches, TrainingOrders
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import teacher_force, token_losses

NUM_ROWS = 20_000
SHORTEST, LONGEST = 30, 1500
TARGET_BYTES = 40
ROW_LENGTH = 1536
MICRO_LENGTH = 8 * ROW_LENGTH
LOADED, TRAINED = 400, 6
BATCHES_BETWEEN_SAMPLES = 8
TURNS = 3


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder))
        kinds = steps(Path(folder))
        figures: dict[str, Any] = {name: in_fresh_process(Path(folder), name) for name in kinds}
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


def write_rows(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    lengths = np.exp(numbers.uniform(np.log(SHORTEST), np.log(LONGEST), NUM_ROWS)).astype(int)
    rows = (json.dumps({"text": "x" * int(length), "answer": "y" * TARGET_BYTES}) for length in lengths)
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")


def steps(folder: Path) -> dict[str, tuple[Steps, Mixture]]:
    """Return the three ways to cut the same plan."""
    source = Manifest(
        str(folder / "rows.jsonl"), prompt="{text}", target="{answer}", max_source_length=LONGEST
    )
    source.connect({})
    mixture = Mixture.training({"texts": source}, seed=0, interfaces={})
    plan = Plan(tuple(mixture.parts), (1.0,), seed=0)
    return {
        "padded": (CountedSteps(plan, mixture.lengths, 16, 4), mixture),
        "budgeted": (BudgetedSteps(plan, mixture.lengths, Budget(4 * MICRO_LENGTH, MICRO_LENGTH)), mixture),
        "packed": (
            BudgetedSteps(plan, mixture.lengths, Budget(4 * MICRO_LENGTH, MICRO_LENGTH, ROW_LENGTH)),
            mixture,
        ),
    }


def loader(kind: Steps, mixture: Mixture, num_workers: int = 0) -> Iterable[Batch]:
    orders = TrainingOrders(kind, rank=0, world_size=1, step=0, start=0, num_steps=10**6)
    return Loader(TrainingMicroBatches(mixture), orders, 10**6, num_workers, pin_memory=False)


def in_fresh_process(folder: Path, name: str) -> dict[str, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(loading, folder, name).result()


def loading(folder: Path, name: str) -> dict[str, float]:
    """Return how fast micro-batches come in this process, their padding, and the memory it takes."""
    multiprocessing.set_start_method("fork", force=True)  # as in a run; a spawned process would spawn its own
    kind, mixture = steps(folder)[name]
    before = memory_mb()["Rss"]
    useful = positions = examples = 0
    taken = 0.0
    resident = []
    batches = iter(loader(kind, mixture))
    for number in range(LOADED):
        started = time.perf_counter()
        batch = next(batches)
        taken += time.perf_counter() - started
        useful += batch.num_ids
        positions += batch.inputs.input_ids.numel() + batch.labels.numel()
        packing = batch.inputs.packing
        examples += len(batch.part) if packing is None else int(packing.segments.amax(1).sum())
        if number % BATCHES_BETWEEN_SAMPLES == 0:
            resident.append(memory_mb()["Rss"])
    peak = memory_mb()["VmHWM"]
    return {
        "loaded_examples_per_s": examples / taken,
        "loaded_useful_bytes_per_s": useful / taken,
        "padding_share": 1 - useful / positions,
        "resident_mb": median(resident),
        "resident_growth_mb": median(resident[len(resident) // 2 :]) - before,
        "resident_growth_mb_of_second_half": resident[-1] - resident[len(resident) // 2],
        "peak_resident_growth_mb": peak - before,
        "private_mb_of_a_worker": worker_memory(kind, mixture),
    }


def worker_memory(kind: Steps, mixture: Mixture) -> float:
    """Return what a data worker that has loaded its share of the batches holds and shares with no other process."""
    batches = iter(loader(kind, mixture, num_workers=2))
    for _ in range(LOADED):
        next(batches)
    return median(child.memory_full_info().uss / 1e6 for child in psutil.Process().children())


def tiny() -> CrossModalT5:
    backbone = Backbone(shape=TINY).build()
    return CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {}).train()


def useful_bytes_per_s(model: CrossModalT5, batches: list[Batch]) -> float:
    """Return the useful bytes of forward and backward passes over `batches` in a second."""
    started = time.perf_counter()
    for batch in (batch.to("cpu") for batch in batches):
        logits = teacher_force(model, batch.inputs, batch.labels).logits
        token_losses(logits, batch.labels).sum().backward()
        model.zero_grad(set_to_none=True)
    return sum(batch.num_ids for batch in batches) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
