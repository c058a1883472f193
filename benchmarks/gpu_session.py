"""One call of the GPU benchmark: its time, its failures, and the file of figures."""

import json
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from benchmarks.device import Device, Group
from benchmarks.report import format_value
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError

MIN_SECONDS = 15.0
"""With less time left to the call nothing is started. A step of base with warm-up takes about as long on an H100."""
GRACE_SECONDS = 10.0
"""A measurement may take this much longer than its part, if the call has the time."""

Figures = dict[str, Any]
T = TypeVar("T")


@dataclass
class Session:
    """One call: device, file of figures, end time, and the names that failed, do not exist here, or had no time."""

    device: Device
    path: Path
    end: float
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    def attempt(self, name: str, function: Callable[[], T], end: float) -> T | None:
        """Call `function` and return its result; None if it fails (prints a line), or if it is too late to start.

        `end` is that of its part. It is interrupted `GRACE_SECONDS` later, and at the end of the call.
        """
        if self.seconds_left < MIN_SECONDS or time.monotonic() > end:
            self.skipped.append(name)
            return None
        try:
            with time_limit(min(end + GRACE_SECONDS, self.end) - time.monotonic()):
                return function()
        except UserError as error:  # refused here, for instance an attention that this device cannot run
            print(f"{name}: not run: {error}", flush=True)
        except Exception as error:  # in a kernel, a library, or out of memory: the next may work
            message = next(iter(str(error).splitlines()), "")[:200]
            print(f"{name}: FAILED: {type(error).__name__}: {message}", flush=True)
            self.failed.append(name)
        return None

    def measure(self, part: str, groups: Iterable[Group], seconds: float = float("inf")) -> None:
        """Measure one part, group by group, and store the figures. It starts nothing after `seconds`."""
        end = min(self.end, time.monotonic() + seconds)
        self.device.part_end = end
        for keys, build in groups:
            name = ".".join((part, *keys))
            group: Figures = {}
            for key, function in (self.attempt(name, build, end) or {}).items():
                figures = self.attempt(f"{name}.{key}" if key else name, function, end)
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

    def figures(self) -> Figures:
        """Return all figures of this card, those of earlier calls included."""
        if not self.path.is_file():
            return {}
        return json.loads(self.path.read_text(encoding="utf-8")).get(self.device.name, {})


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`; compilation can take minutes. For the main thread."""

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"interrupted after {seconds:.0f} s")

    handler = signal.signal(signal.SIGALRM, interrupt)
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, others)
        signal.signal(signal.SIGALRM, handler)
