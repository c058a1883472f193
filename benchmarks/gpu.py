"""Measures a GPU in at most five minutes: its tests, attention, and training and decoding against transformers.

    python -m benchmarks.gpu                                 everything; `make bench-gpu`
    python -m benchmarks.gpu --only train --sizes small      one part
    python -m benchmarks.gpu --toy --out /tmp/figures        tiny sizes on a CPU, to test the script

It first measures the rates of a matrix product and of a copy, then

- `tests`: the tests that need CUDA, `pytest -m gpu`;
- `attention`: see `benchmarks.gpu_attention`;
- `train`: see `benchmarks.gpu_training`;
- `decode`: see `benchmarks.gpu_decoding`.

A failure is printed in one line and the next measurement starts; those without time left are listed at the end.
Figures are merged into gpu.json under the card's name at once, each part with its date and the versions of torch and
transformers. The exit code is 1 if anything failed. Needs torch, transformers and PyYAML (and the packages of the
tests), and no network.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import torch
import transformers

from benchmarks import gpu_attention, gpu_decoding, gpu_training
from benchmarks.device import Device, Group
from benchmarks.report import RESULTS, format_value
from kebyt5_xm.durable import durable_file
from kebyt5_xm.model.backbone import SHAPES

ROOT = Path(__file__).parents[1]
PARTS = ("tests", "attention", "train", "decode")
SECONDS = 300.0
MIN_SECONDS = 15.0
"""With less time left nothing is started. A step of base with its warm-up takes about this long on an H100."""
TEST_SECONDS = 120.0

Figures = dict[str, Any]
T = TypeVar("T")


@dataclass
class Session:
    """One run of this benchmark: device, file of figures, end time, and the names that failed or were skipped."""

    device: Device
    path: Path
    end: float
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def attempt(self, name: str, function: Callable[[], T]) -> T | None:
        """Call `function` and return its result; None if it fails (prints a line) or no time is left."""
        if self.seconds_left < MIN_SECONDS:
            self.skipped.append(name)
            return None
        try:
            return function()
        except Exception as error:  # in a kernel, a library, or out of memory: the next may work
            message = next(iter(str(error).splitlines()), "")[:200]
            print(f"{name}: FAILED: {type(error).__name__}: {message}", flush=True)
            self.failed.append(name)
            return None

    def measure(self, part: str, groups: Iterable[Group]) -> None:
        """Measure one part, group by group, and store the figures."""
        for keys, build in groups:
            name = ".".join((part, *keys))
            group: Figures = {}
            for key, function in (self.attempt(name, build) or {}).items():
                figures = self.attempt(f"{name}.{key}" if key else name, function)
                if figures is not None:
                    texts = (f"{figure} {format_value(value)}" for figure, value in figures.items())
                    print(f"{name} {key}".rstrip() + f": {', '.join(texts)}", flush=True)
                    group |= {key: figures} if key else figures
            self.device.free_memory()
            if group:
                self.store((part, *keys), group)

    def store(self, keys: Sequence[str], figures: Figures) -> None:
        """Write figures into the file, replacing earlier ones under the same keys."""
        stored = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        place = stored.setdefault(self.device.name, {})
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = {
            "date": datetime.now(UTC).date().isoformat(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **figures,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(self.path) as file:
            file.write((json.dumps(stored, indent=2, ensure_ascii=False) + "\n").encode())


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the top of this file. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="this part (may be repeated)")
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=["small", "base"])
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"seconds for everything ({SECONDS:g})"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="folder of gpu.json")
    parser.add_argument("--toy", action="store_true", help="tiny sizes on the CPU")
    options = parser.parse_args(args)
    if not options.toy and not torch.cuda.is_available():
        print("error: found no CUDA device; --toy runs tiny sizes on the CPU", file=sys.stderr)
        return 2
    session = Session(Device(options.toy), options.out / "gpu.json", time.monotonic() + options.seconds)
    rates: Figures = {}
    print(
        f"{session.device.name}: torch {torch.__version__}, transformers {transformers.__version__}",
        flush=True,
    )
    session.measure("matrix", [((), lambda: {"": partial(_rates, session.device, rates)})])
    for part in options.only or PARTS:
        if part == "tests":
            limit = min(TEST_SECONDS, session.seconds_left)
            session.measure("tests", [((), lambda limit=limit: {"": partial(gpu_tests, limit)})])
        elif not rates:  # without a matrix product nothing else runs
            session.skipped.append(part)
        else:
            groups = {
                "attention": gpu_attention.groups,
                "train": gpu_training.groups,
                "decode": gpu_decoding.groups,
            }[part]
            session.measure(part, groups(options.sizes, session.device, rates))
    if session.skipped:
        print(f"no time was left for: {', '.join(session.skipped)}")
    if session.failed:
        print(f"failed: {', '.join(session.failed)}")
    return 1 if session.failed else 0


def _rates(device: Device, rates: Figures) -> Figures:
    rates.update(device.measure_rates())
    return rates


def gpu_tests(limit: float) -> Figures:
    """Run `pytest -m gpu` for at most `limit` seconds; return how many passed, failed and were skipped.

    Only files with such tests are collected: others may import packages that are not installed.
    """
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in path.read_text("utf-8")]
    # Without pytest-timeout, the options in pyproject.toml would fail.
    plain = [] if importlib.util.find_spec("pytest_timeout") else ["-c", os.devnull, "--rootdir", str(ROOT)]
    paths = [str(ROOT), str(ROOT / "tests" / "tools")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *plain]
        begin = time.monotonic()
        tests = subprocess.Popen(
            [*command, f"--junitxml={report}", *map(str, marked)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.getenv("PYTHONPATH", "")])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            printed, _ = tests.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(tests.pid, signal.SIGKILL)  # including training processes, which hold the card
            tests.communicate()
            raise RuntimeError(f"not done after {limit:.0f} s") from None
        if not report.is_file():
            last = printed.strip().rpartition("\n")[2]
            raise RuntimeError(last or f"pytest ended with {tests.returncode}")
        suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    if counts["failures"] or counts["errors"]:
        print(printed, flush=True)
    bad = counts["failures"] + counts["errors"]
    return {
        "passed": counts["tests"] - bad - counts["skipped"],
        "failed": bad,
        "skipped": counts["skipped"],
        "seconds": time.monotonic() - begin,
    }


if __name__ == "__main__":
    sys.exit(main())
