"""Figures of a benchmark: measured side by side, printed, and kept as JSON.

A benchmark is a script `benchmarks/NAME.py`, run from the repository root with `python -m benchmarks.NAME`:

    from benchmarks.report import seconds, write

    taken = seconds({"ours": lambda: ours(data), "peer": lambda: peer(data)})
    write(
        "NAME",
        {"ours_mb_per_s": 10 / taken["ours"], "peer_mb_per_s": 10 / taken["peer"],
         "ratio_ours_to_peer": taken["peer"] / taken["ours"]},
        demanded={"ratio_ours_to_peer": 200},
    )

A key names its unit (`examples_per_s`, `resident_mb`), a ratio what is divided by what (`ratio_A_to_B`):
absolute rates differ between machines, ratios of one run compare. Nested mappings print as `outer.inner`, and
`demanded` names their keys so.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def seconds(functions: Mapping[str, Callable[[], object]], turns: int = 5) -> dict[str, float]:
    """Return the seconds that one call of each function takes, measured side by side.

    The functions take turns, so that a change of the machine's load falls on all alike. A turn is as many calls
    as fit 0.2 s, at least one, and counts by their mean; the result is the best of `turns`, after one that is
    not counted.
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


def write(name: str, figures: Mapping[str, Any], demanded: Mapping[str, float] | None = None) -> Path:
    """Print the figures, write benchmarks/results/NAME.json and return its path.

    The file holds `name`, `date` (UTC), `machine`, `figures` and `demanded` (key -> the least accepted; the
    table says whether it was reached). `machine` names torch only where the benchmark has imported it.
    """
    report = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": dict(figures),
        "demanded": dict(demanded or {}),
    }
    rows = _flatten(figures)
    unknown = set(report["demanded"]) - set(rows)
    assert not unknown, f"demanded names no figure: {sorted(unknown)}, figures are {sorted(rows)}"
    print(f"\n{name}: " + ", ".join(f"{key} {value}" for key, value in report["machine"].items()))
    width = max(map(len, rows))
    for key, value in rows.items():
        least = report["demanded"].get(key)
        verdict = (
            ""
            if least is None
            else f"  {'reached' if value >= least else 'MISSED'}: {_shown(least)} demanded"
        )
        print(f"  {key:<{width}}  {_shown(value):>12}{verdict}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def machine() -> dict[str, str | int]:
    """Return what a figure depends on: processor, cores, system, and versions of what is loaded."""
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


def _flatten(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
