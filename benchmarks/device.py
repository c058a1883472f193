"""The measured device: its name, timing, memory, and its two limiting rates (matrix product and copy)."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Group = tuple[tuple[str, ...], Callable[[], Mapping[str, Callable[[], dict[str, float]]]]]
"""Measurements of one model: the keys of its figures, and a function that builds the measuring functions by name."""

MATRIX_SIDE, COPY_BYTES = 8192, 1 << 30
"""Large enough to fill a GPU; a product takes about 2 ms on an H100."""
TOY_SIDE, TOY_BYTES = 67, 1 << 12


class Device:
    """The first CUDA device or, for toy sizes, the CPU."""

    def __init__(self, toy: bool) -> None:
        self.kind = "cpu" if toy else "cuda"
        self.toy = toy
        self.part_end = float("inf")  # time.monotonic() at which the present part is to end

    @property
    def seconds_left(self) -> float:
        """Seconds left to the present part."""
        return self.part_end - time.monotonic()

    @property
    def name(self) -> str:
        """The card's name."""
        return "toy sizes on a CPU" if self.toy else torch.cuda.get_device_name()

    def measure_seconds(self, function: Callable[[], object], warmup: int, repeats: int) -> float:
        """Return the median seconds of `repeats` synchronised calls, after `warmup` calls."""
        times = []
        for turn in range(warmup + repeats):
            self._synchronize()
            begin = time.perf_counter()
            function()
            self._synchronize()
            if turn >= warmup:
                times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def _synchronize(self) -> None:
        if self.kind == "cuda":
            torch.cuda.synchronize()

    def free_memory(self) -> None:
        """Free unused memory and reset the peak."""
        gc.collect()
        if self.kind == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_memory(self) -> dict[str, float]:
        """Return the peak GB of tensors since `free_memory`; nothing on a CPU."""
        return {"peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9} if self.kind == "cuda" else {}

    def measure_rates(self) -> dict[str, float]:
        """Measure a bf16 matrix product of random numbers, and a copy (bytes read plus bytes written)."""
        side = TOY_SIDE if self.toy else MATRIX_SIDE
        left, right = (torch.randn(side, side, device=self.kind, dtype=torch.bfloat16) for _ in range(2))
        product = self.measure_seconds(lambda: torch.mm(left, right), warmup=5, repeats=21)
        source = torch.ones(TOY_BYTES if self.toy else COPY_BYTES, device=self.kind, dtype=torch.uint8)
        target = torch.empty_like(source)
        copy = self.measure_seconds(lambda: target.copy_(source), warmup=3, repeats=11)
        return {
            "matrix_tflop_per_s": 2 * side**3 / product / 1e12,
            "copy_gb_per_s": 2 * len(source) / copy / 1e9,
        }
