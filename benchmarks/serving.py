"""`kebyt5-xm serve` under load: clients that ask without a pause, with batches and without.

    python -m benchmarks.serving
    python -m benchmarks.serving --seconds 5 --clients 8

A client is a thread that keeps its connection. The model never ends by itself, so all answers have equally many
bytes. Without batches, the same server answers one request after another. A request that is not answered with 200,
or whose connection breaks, counts as failed.
"""

import argparse
import http.client
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

import numpy as np

from benchmarks.decoding import random_model
from benchmarks.report import write_report
from benchmarks.training_data import TINY

NUM_BYTES = 32
TEXT = "나라 말이 중국과 달라 문자와 서로 통하지 아니하므로"


def main(words: Sequence[str] = ()) -> None:
    """Measure both servers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load on each server (60)")
    parser.add_argument("--clients", type=int, default=32, help="clients that ask at once (32)")
    args = parser.parse_args(list(words))
    with tempfile.TemporaryDirectory() as folder:
        random_model(TINY).save_pretrained(folder)
        figures = {
            name: load(folder, batch_size, args.clients, args.seconds)
            for name, batch_size in (("batches_of_16", 16), ("one_by_one", 1))
        }
    gain = figures["batches_of_16"]["requests_per_s"] / figures["one_by_one"]["requests_per_s"]
    write_report(
        "serving",
        {
            "clients": args.clients,
            "seconds": args.seconds,
            "num_bytes": NUM_BYTES,
            **figures,
            "ratio_batches_to_one_by_one": gain,
        },
    )


def load(model: str, batch_size: int, clients: int, seconds: float) -> dict[str, float]:
    """Return the figures of a server under load."""
    options = ["--port", "0", "--max-batch-size", str(batch_size), "--max-requests", str(2 * clients)]
    command = [sys.executable, "-m", "kebyt5_xm", "serve", model, *options]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            return _load(server, clients, seconds)
        finally:
            server.terminate()


def _load(server: "subprocess.Popen[str]", clients: int, seconds: float) -> dict[str, float]:
    assert server.stdout is not None
    found = re.search(r"http://(\S+:\d+)", server.stdout.readline())
    assert found, "the server did not start"
    ask(found[1], time.monotonic(), [], [])  # what the first request builds
    times: list[float] = []
    failed: list[int] = []
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=ask, args=(found[1], end, times, failed)) for _ in range(clients)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.monotonic() - begin
    p50, p99 = np.percentile(times, [50, 99])
    return {
        "requests_per_s": len(times) / passed,
        "answered": len(times),
        "failed": len(failed),
        "p50_ms": float(p50) * 1000,
        "p99_ms": float(p99) * 1000,
    }


def ask(address: str, end: float, times: list[float], failed: list[int]) -> None:
    """Ask one request after another until `end`, at least one.

    Their seconds are appended to `times`; to `failed` their statuses if not 200, 0 for a broken connection.
    """
    body = json.dumps({"segments": TEXT, "max_new_tokens": NUM_BYTES, "stop_loops": False})
    connection = http.client.HTTPConnection(address, timeout=120)
    while True:
        begin = time.monotonic()
        try:
            connection.request("POST", "/v1/answer", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            status = response.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        if status == HTTPStatus.OK:
            times.append(time.monotonic() - begin)
        else:
            failed.append(status)
        if time.monotonic() >= end:
            break
    connection.close()


if __name__ == "__main__":
    main(sys.argv[1:])
