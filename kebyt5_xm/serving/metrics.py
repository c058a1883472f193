"""What /metrics tells, in Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
PREFIX = "kebyt5_xm"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts of values up to each bound, their number and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Return its lines."""
        found, lines = 0, [f"# TYPE {PREFIX}_{name} histogram"]
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            found += count
            lines.append(f'{PREFIX}_{name}_bucket{{le="{bound}"}} {found}')
        return [*lines, f"{PREFIX}_{name}_sum {self.total}", f"{PREFIX}_{name}_count {found}"]


class Metrics:
    """Counters of the server; every method may be called by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds, self._batch_sizes = Histogram(SECONDS), Histogram(BATCH_SIZES)
        self._hang_ups = self._bytes = 0

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered, or refused; `seconds` of those that were answered are kept."""
        with self._lock:
            self._requests[route, status] += 1
            if status < 400:
                self._seconds.observe(seconds)

    def observe_batch(self, size: int) -> None:
        """Count a batch."""
        with self._lock:
            self._batch_sizes.observe(size)

    def count_bytes(self, number: int) -> None:
        """Count bytes of answers."""
        with self._lock:
            self._bytes += number

    def count_hang_up(self) -> None:
        """Count a client that left before its answer."""
        with self._lock:
            self._hang_ups += 1

    @property
    def mean_seconds(self) -> float:
        """The mean time of a request that was answered; 1 before the first."""
        with self._lock:
            number = sum(self._seconds.counts)
            return self._seconds.total / number if number else 1.0

    def text(self, in_server: int, waiting: int) -> str:
        """Return the page, given the numbers of requests that are in the server and that wait for the model."""
        with self._lock:
            lines = [f"# TYPE {PREFIX}_requests_total counter"]
            for (route, status), count in sorted(self._requests.items()):
                lines.append(f'{PREFIX}_requests_total{{route="{route}",status="{status}"}} {count}')
            counters = {"hang_ups": self._hang_ups, "answer_bytes": self._bytes}
            for name, value in counters.items():
                lines += [f"# TYPE {PREFIX}_{name}_total counter", f"{PREFIX}_{name}_total {value}"]
            for name, value in {"requests_in_server": in_server, "requests_waiting": waiting}.items():
                lines += [f"# TYPE {PREFIX}_{name} gauge", f"{PREFIX}_{name} {value}"]
            lines += self._seconds.lines("request_seconds")
            lines += self._batch_sizes.lines("batch_size")
        return "\n".join(lines) + "\n"
