"""Helpers of all benchmarks: measure seconds and memory, print the figures, write them as JSON.

A benchmark is a script `benchmarks/NAME.py`, run from the repository root with `python -m benchmarks.NAME`:

    from benchmarks.report import measure_seconds, write_report

    times = measure_seconds({"ours": lambda: ours(data), "peer": lambda: peer(data)})
    write_report(
        "NAME",
        {"ours_mb_per_s": 10 / times["ours"], "peer_mb_per_s": 10 / times["peer"],
         "ratio_ours_to_peer": times["peer"] / times["ours"]},
        demanded={"ratio_ours_to_peer": 200},
    )

A key names its unit (`examples_per_s`, `resident_mb`); a ratio names both sides (`ratio_A_to_B`). Absolute rates
differ between machines; compare ratios of one run. Nested mappings print as `outer.inner`, and `demanded` uses
these names.
"""

import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
T = TypeVar("T")


def measure_seconds(functions: Mapping[str, Callable[[], object]], turns: int = 5) -> dict[str, float]:
    """Return the seconds of one call of each function.

    The functions take turns, so that a change of the machine's load affects all of them. A turn is the mean of the
    calls that fit into 0.2 s, at least one; the result is the best of `turns` turns, after one warm-up turn.
    """
    best = {name: float("inf") for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            calls, begin = 0, time.perf_counter()
            while not calls or time.perf_counter() - begin < 0.2:
                function()
                calls += 1
            if turn:
                best[name] = min(best[name], (time.perf_counter() - begin) / calls)
    return best


def memory_mb() -> dict[str, float]:
    """Return this process's MB on Linux: `Rss` resident, `Anonymous` private, `VmHWM` the peak of `Rss`."""
    folder = Path("/proc/self")
    lines = [
        *(folder / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:],
        *(folder / "status").read_text(encoding="utf-8").splitlines(),
    ]
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(fields[name][0]) * 1024 / 1e6 for name in ("Rss", "Anonymous", "VmHWM")}


def call_in_fresh_process(function: Callable[..., T], *args: Any) -> T:
    """Return `function(*args)`, called in a new process whose memory holds nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def write_report(name: str, figures: Mapping[str, Any], demanded: Mapping[str, float] | None = None) -> Path:
    """Print the figures, write benchmarks/results/NAME.json and return its path.

    The file holds `name`, `date` (UTC), `machine`, `figures` and `demanded` (key -> minimum; the printed table says
    whether it was reached). `machine` names torch only if the benchmark imported it.
    """
    report = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_machine(),
        "figures": dict(figures),
        "demanded": dict(demanded or {}),
    }
    rows = flatten(figures)
    unknown = set(report["demanded"]) - set(rows)
    assert not unknown, f"`demanded` names unknown figures: {sorted(unknown)}, figures are {sorted(rows)}"
    print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    width = max(map(len, rows))
    for key, value in rows.items():
        least = report["demanded"].get(key)
        verdict = (
            ""
            if least is None
            else f"  {'reached' if value >= least else 'MISSED'}: {format_value(least)} demanded"
        )
        print(f"  {key:<{width}}  {format_value(value):>12}{verdict}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def describe_machine() -> dict[str, str | int]:
    """Return the processor, cores, system, and the versions of imported packages."""
    described: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in ("numpy", "torch", "transformers", "lightning"):
        if package in sys.modules:
            described[package] = str(sys.modules[package].__version__)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def flatten(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested figures as one mapping with keys `outer.inner`."""
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def format_value(value: object) -> str:
    """Return a figure as text: four digits of a float below 1000, no decimals above."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
