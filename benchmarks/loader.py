"""Loading texts of mixed lengths: rate, padding and memory, with batches by number, by length, and packed.

OMP_NUM_THREADS=2 python -m benchmarks.loader

The loader reads short and long texts (30 to 1,500 bytes, log-uniform, like captions and documents), in a fresh
process for each kind of batch: rate, padding and memory without workers, then the private memory of two forked
workers. Useful bytes are input and target ids without padding. `benchmarks.training` measures training on such texts.
"""

import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.report import call_in_fresh_process, memory_mb, write_report
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import TrainingMicroBatches, TrainingOrders
from kebyt5_xm.data.order.mixture import Mixture
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.data.order.steps import Budget, BudgetedSteps, CountedSteps, Steps
from kebyt5_xm.data.sources.manifest_source import Manifest

NUM_ROWS = 20_000
SHORTEST, LONGEST = 30, 1500
TARGET_BYTES = 40
ROW_LENGTH = 1536
MICRO_LENGTH = 8 * ROW_LENGTH
NUM_LOADED = 400
BATCHES_BETWEEN_SAMPLES = 8
KINDS = ("padded", "budgeted", "packed")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder))
        figures = {name: call_in_fresh_process(measure_loading, Path(folder), name) for name in KINDS}
    write_report("loader", figures)


def write_rows(folder: Path) -> None:
    numbers = np.random.default_rng(0)
    lengths = np.exp(numbers.uniform(np.log(SHORTEST), np.log(LONGEST), NUM_ROWS)).astype(int)
    rows = (json.dumps({"text": "x" * int(length), "answer": "y" * TARGET_BYTES}) for length in lengths)
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")


def make_steps(folder: Path) -> dict[str, tuple[Steps, Mixture]]:
    """Return three ways to form batches from the same plan."""
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


def make_loader(kind: Steps, mixture: Mixture, num_workers: int = 0) -> Iterable[Batch]:
    orders = TrainingOrders(kind, rank=0, world_size=1, step=0, start=0, num_steps=10**6)
    return Loader(TrainingMicroBatches(mixture), orders, 10**6, num_workers, pin_memory=False)


def measure_loading(folder: Path, name: str) -> dict[str, float]:
    """Measure the rate of loading in this process, the padding share, and the memory."""
    multiprocessing.set_start_method("fork", force=True)  # as in a run; here the default is spawn
    kind, mixture = make_steps(folder)[name]
    before = memory_mb()["Rss"]
    useful = positions = examples = 0
    elapsed = 0.0
    resident = []
    batches = iter(make_loader(kind, mixture))
    for number in range(NUM_LOADED):
        started = time.perf_counter()
        batch = next(batches)
        elapsed += time.perf_counter() - started
        useful += batch.num_ids
        positions += batch.inputs.input_ids.numel() + batch.labels.numel()
        packing = batch.inputs.packing
        examples += len(batch.part) if packing is None else int(packing.segments.amax(1).sum())
        if number % BATCHES_BETWEEN_SAMPLES == 0:
            resident.append(memory_mb()["Rss"])
    peak = memory_mb()["VmHWM"]
    return {
        "loaded_examples_per_s": examples / elapsed,
        "loaded_useful_bytes_per_s": useful / elapsed,
        "padding_share": 1 - useful / positions,
        "resident_mb": median(resident),
        "resident_growth_mb": median(resident[len(resident) // 2 :]) - before,
        "resident_growth_mb_of_second_half": resident[-1] - resident[len(resident) // 2],
        "peak_resident_growth_mb": peak - before,
        "private_mb_of_a_worker": measure_worker_memory(kind, mixture),
    }


def measure_worker_memory(kind: Steps, mixture: Mixture) -> float:
    """Return the private MB of a data worker after it has loaded its share of the batches."""
    batches = iter(make_loader(kind, mixture, num_workers=2))
    for _ in range(NUM_LOADED):
        next(batches)
    return median(child.memory_full_info().uss / 1e6 for child in psutil.Process().children())


if __name__ == "__main__":
    main()
