"""Preparing a store, reading it into denoised tensors, and the memory that reading takes.

OMP_NUM_THREADS=1 python -m benchmarks.store

Needs about 5 GB of temporary disk (in TMPDIR) and two minutes. Memory is measured in a fresh process that reads
chunks at random, and compared with `np.memmap`: private pages (`Anonymous` of /proc/self/smaps_rollup), and all
resident pages, which include the mapped page cache.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.report import call_in_fresh_process, measure_seconds, memory_mb, write_report
from kebyt5_xm.commands.prepare import prepare_text
from kebyt5_xm.data.pool import num_cores
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.data.text.store_writer import StoreWriter

SENTENCES = [
    "바이트 단위 모델은 어휘 없이 한국어 문장을 그대로 읽고 쓴다. ",
    "Noisy input, spelling mistakes and rare words are all the same to a model of bytes. ",
    "字节级模型直接处理原始文本，不需要分词器。",
    "バイト列をそのまま扱うので、未知語という問題は起こらない。",
]
CORPUS_BYTES = 400_000_000
SMALL_BYTES, LARGE_BYTES = 40_000_000, 4_000_000_000
CHUNK = SpanDenoising().chunk_length
BATCH_SIZE = 64
BATCHES_PER_FETCH = 4
NUM_BATCHES = 64
NUM_ROWS_READ = 200_000
DEMANDED_EXAMPLES_PER_S = 8_000


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="store-benchmark-") as folder:
        directory = Path(folder)
        figures: dict[str, Any] = {"prepare": measure_prepare(directory)}
        stores = {"40_mb": directory / "small", "4_gb": directory / "large"}
        write_store(stores["40_mb"], SMALL_BYTES)
        write_store(stores["4_gb"], LARGE_BYTES)
        figures["memory"] = {
            reader: {name: call_in_fresh_process(read, path) for name, path in stores.items()}
            for reader, read in (("store", read_store), ("memmap", read_memmap))
        }
        figures["tensors"] = {name: measure_tensors(path) for name, path in stores.items()}
    resident = {
        reader: figures["memory"][reader]["4_gb"]["resident_growth_mb"] for reader in ("store", "memmap")
    }
    figures["ratio_4_gb_to_resident_growth"] = LARGE_BYTES / 1e6 / max(resident["store"], 1)
    figures["ratio_resident_growth_memmap_to_store"] = resident["memmap"] / max(resident["store"], 1)
    write_report(
        "store",
        figures,
        demanded={
            **{f"tensors.{name}.examples_per_s_in_process": DEMANDED_EXAMPLES_PER_S for name in stores},
            "ratio_4_gb_to_resident_growth": 40,
        },
    )


def make_documents(num_bytes: int) -> list[bytes]:
    """Return documents of 50 to 6,000 bytes without newlines, about `num_bytes` together."""
    rng = np.random.default_rng(0)
    documents, size = [], 0
    while size < num_bytes:
        picks = rng.integers(0, len(SENTENCES), rng.integers(1, 64))
        documents.append("".join(SENTENCES[pick] for pick in picks).encode())
        size += len(documents[-1]) + 1
    return documents


def write_store(path: Path, num_bytes: int) -> None:
    block = make_documents(SMALL_BYTES // 10)
    with StoreWriter(path, "ko", shard_bytes=500_000_000) as store:
        for _ in range(num_bytes // (SMALL_BYTES // 10)):
            for document in block:
                store.write(document)


def measure_prepare(directory: Path) -> dict[str, float]:
    corpus = directory / "corpus.txt"
    block = b"\n".join(make_documents(CORPUS_BYTES // 10)) + b"\n"
    with corpus.open("wb") as file:
        for _ in range(10):
            file.write(block)
    figures: dict[str, float] = {"input_mb": corpus.stat().st_size / 1e6}
    for name, workers in {"1_process": 1, f"{num_cores()}_workers": num_cores()}.items():
        summary = prepare_text(
            [str(corpus)], directory / "prepared", "ko", workers=workers, shard_bytes=32 << 20, overwrite=True
        )
        figures[f"mb_per_s_{name}"] = summary.bytes_read / summary.seconds / 1e6
    corpus.unlink()
    return figures


def read_store(path: Path) -> dict[str, float]:
    def open_store() -> tuple:
        store = Store(path)
        return store.num_chunks(CHUNK), partial(store.chunks, length=CHUNK)

    return read_at_random(open_store)


def read_memmap(path: Path) -> dict[str, float]:
    """Read through memory maps of the same files, for comparison; a smaller last file is left out."""

    def open_maps() -> tuple:
        files = sorted(path.glob("*.bytes"), key=lambda file: -file.stat().st_size)
        maps = [np.memmap(file, np.uint8, "r") for file in files[: max(len(files) - 1, 1)]]
        windows = [np.lib.stride_tricks.sliding_window_view(mapped, CHUNK) for mapped in maps]
        per_shard = min(map(len, windows)) // CHUNK

        def chunks(rows: np.ndarray) -> np.ndarray:
            out = np.empty((len(rows), CHUNK), np.uint8)
            for number in np.unique(rows // per_shard):
                where = rows // per_shard == number
                out[where] = windows[number][rows[where] % per_shard * CHUNK]
            return out

        return per_shard * len(maps), chunks

    return read_at_random(open_maps)


def read_at_random(open_reader: Callable[[], tuple[int, Callable]]) -> dict[str, float]:
    before = memory_mb()
    started = time.perf_counter()
    num_rows, chunks = open_reader()
    opened = time.perf_counter()
    rng = np.random.default_rng(0)
    samples = []
    for number in range(NUM_ROWS_READ // BATCH_SIZE):
        chunks(rng.integers(0, num_rows, BATCH_SIZE))
        if number % 64 == 0:
            samples.append(memory_mb())
    elapsed = time.perf_counter() - opened
    late = samples[len(samples) // 2 :]
    return {
        "opening_ms": (opened - started) * 1e3,
        "chunks_per_s": NUM_ROWS_READ / elapsed,
        "private_growth_mb": median(sample["Anonymous"] for sample in late) - before["Anonymous"],
        "resident_growth_mb": median(sample["Rss"] for sample in late) - before["Rss"],
        "peak_resident_growth_mb": samples[-1]["VmHWM"] - before["Rss"],
    }


class Batches:
    """Denoised batch i of a store, as int16 tensors (inputs [64, 1024], targets [64, 189])."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.objective = SpanDenoising()

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, number: int) -> tuple:
        import torch

        index = np.arange(number * BATCH_SIZE, (number + 1) * BATCH_SIZE, dtype=np.uint64)
        rows = np.random.default_rng(number).integers(0, self.store.num_chunks(CHUNK), BATCH_SIZE)
        inputs, targets = self.objective.corrupt(self.store.chunks(rows, CHUNK), 0, index)
        return torch.from_numpy(inputs), torch.from_numpy(targets)


def measure_tensors(path: Path) -> dict[str, float]:
    import torch
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    batches = Batches(path)

    def in_process() -> None:
        for number in range(NUM_BATCHES):
            batches[number]

    def from_worker(worker: Iterator[list]) -> None:
        for _ in range(NUM_BATCHES // BATCHES_PER_FETCH):
            next(worker)

    loader = DataLoader(
        batches,  # pyright: ignore[reportArgumentType]  # anything with a length and items works
        batch_size=BATCHES_PER_FETCH,
        sampler=range(len(batches)),
        collate_fn=list,
        num_workers=1,
    )
    # Not in turns: a started worker would keep running while the process is measured.
    in_process_seconds = measure_seconds({"": in_process})[""]
    worker_seconds = measure_seconds({"": partial(from_worker, iter(loader))})[""]
    return {
        "examples_per_s_in_process": NUM_BATCHES * BATCH_SIZE / in_process_seconds,
        "examples_per_s_from_1_worker": NUM_BATCHES * BATCH_SIZE / worker_seconds,
    }


if __name__ == "__main__":
    main()
