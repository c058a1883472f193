"""Training steps or answers of several processes, measured in turns.

Each contestant is a process with its own environment that waits until it is told to train for a turn. So a change of
the machine's load affects all of them, while none shares memory settings with another. A process at rest waits for a
line on its standard input; after a turn it prints one line with the figures of the turn.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.report import memory_mb

ROOT = Path(__file__).parents[1]
MARK = "turn: "
"""What a line with figures begins with; libraries print other lines."""
SETTINGS = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "MALLOC_", "GLIBC_", "THP_", "LD_PRELOAD")
"""Prefixes of variables that change the speed of a process."""
LAST_LINES = 5


def is_setting(variable: str) -> bool:
    """Return True for an environment variable that changes the speed of a process."""
    return variable.startswith(SETTINGS)


def plain_environment() -> dict[str, str]:
    """Return this process's environment without variables that change the speed, and without a GPU."""
    kept = {name: value for name, value in os.environ.items() if not is_setting(name)}
    return {**kept, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


class Turns:
    """The side of the contestant: call `step_done` after every optimizer step.

    The first `warmup` steps are not measured. Then each turn of `steps` steps begins when a line arrives.
    """

    def __init__(self, steps: int, warmup: int = 1) -> None:
        self.steps, self.warmup = steps, warmup
        self._count, self._ids, self._begin = -warmup, 0, 0.0

    def step_done(self, num_ids: int) -> None:
        """Count a step over `num_ids` input and target ids; at the end of a turn, report and wait for the next."""
        self._count, self._ids = self._count + 1, self._ids + num_ids
        if self._count == 0:
            report_ready()
        elif self._count == self.steps:
            report_turn(time.perf_counter() - self._begin, self._ids)
        else:
            return
        self._count, self._ids, self._begin = 0, 0, time.perf_counter()


def report_ready(**about: object) -> None:
    """Tell the benchmark that this contestant is ready, and `about` it; return when its first turn begins."""
    settings = {name: value for name, value in os.environ.items() if is_setting(name)}
    _report({"settings": settings, **about})


def report_turn(seconds: float, num_ids: int) -> None:
    """Tell the benchmark what a turn took; return when the next begins."""
    _report({"seconds": seconds, "num_ids": num_ids, "peak_resident_mb": memory_mb()["VmHWM"]})


def _report(figures: Mapping[str, Any]) -> None:
    print("\n" + MARK + json.dumps(figures), flush=True)
    if not sys.stdin.readline():
        os._exit(0)  # the benchmark was killed; a trainer would go on to the end of its run


class Contestant:
    """The side of the benchmark: a process that calls `Turns.step_done`, or `report_ready` and `report_turn`.

    `settings`: the variables of the process that change its speed. `about`: what it reported when it was ready.
    Raises RuntimeError, with the last lines that the process printed, if it ends.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.settings: dict[str, str] = {}
        self.about: dict[str, Any] = {}
        self.best = {"useful_bytes_per_s": 0.0, "peak_resident_mb": 0.0}

    def wait_until_ready(self) -> None:
        """Wait until the warm-up is over."""
        self.about = self._read()
        self.settings = self.about["settings"]

    def turn(self) -> None:
        """Train for one turn; keep the best rate and the highest peak of memory."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        turn = self._read()
        rate, peak = turn["num_ids"] / turn["seconds"], turn["peak_resident_mb"]
        self.best = {
            "useful_bytes_per_s": max(self.best["useful_bytes_per_s"], rate),
            "peak_resident_mb": max(self.best["peak_resident_mb"], peak),
        }

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        self._errors.seek(0)
        printed = self._errors.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
        raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}:\n" + "\n".join(printed))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # closes its pipes
        self._errors.close()


def wait_until_ready(contestants: Sequence[Contestant]) -> None:
    """Wait until all have started and warmed up, at the same time."""
    with ThreadPoolExecutor(max(1, len(contestants))) as pool:
        list(pool.map(Contestant.wait_until_ready, contestants))
