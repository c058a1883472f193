"""The part `tests` of the GPU benchmark: `pytest -m gpu`."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.device import Device, Group

ROOT = Path(__file__).parents[1]


def groups(sizes: Sequence[str], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the one measurement."""
    yield (), lambda: {"": partial(run_tests, max(1.0, device.seconds_left))}


def run_tests(limit: float) -> dict[str, float]:
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
        except BaseException as error:  # too long, or interrupted
            os.killpg(tests.pid, signal.SIGKILL)  # including training processes, which hold the card
            tests.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"not done after {limit:.0f} s") from None
            raise
        if not report.is_file():
            last = printed.strip().rpartition("\n")[2]
            raise RuntimeError(last or f"pytest ended with {tests.returncode}")
        suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
    bad = counts["failures"] + counts["errors"]
    if bad:
        print(printed, flush=True)
    return {
        "passed": counts["tests"] - bad - counts["skipped"],
        "failed": bad,
        "skipped": counts["skipped"],
        "seconds": time.monotonic() - begin,
    }
