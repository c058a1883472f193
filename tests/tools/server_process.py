"""`kebyt5-xm serve` in a process of its own."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_AFTER_LEAVING = 2_000
"""Bytes that are written while the server learns that a client has gone: some hundred on a busy machine."""


class Server:
    """A started server; `url` is its address, and `headers` are sent with every request."""

    def __init__(self, model: str, *options: str, **environment: str) -> None:
        self.headers: dict[str, str] = {}
        self._files = contextlib.ExitStack()
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__; a pipe would be full some time)
        self._errors = self._files.enter_context(errors)
        command = [sys.executable, "-m", "kebyt5_xm", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found, f"{line}{self.wait()}"
        self.url = found[0]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=120)

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        """Return the status, the headers and the JSON (or text) of a response; a body of bytes is sent as it is."""
        connection = self.connect()
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content-Type": "application/json", **self.headers, **headers}
        connection.request("GET" if body is None else "POST", path, raw, fields)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        is_json = (response.getheader("content-type") or "").startswith("application/json")
        return response.status, response.headers, json.loads(text) if is_json else text

    def send(self, body: Any) -> http.client.HTTPConnection:
        """Send a request and read nothing."""
        connection = self.connect()
        fields = {"Content-Type": "application/json", **self.headers}
        connection.request("POST", "/v1/answer", json.dumps(body), fields)
        return connection

    def begin(self, body: Any) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Ask for a stream and read its first piece."""
        connection = self.send(body)
        response = connection.getresponse()
        assert response.status == 200
        assert response.readline().startswith(b"data: ")
        return connection, response

    def count(self, name: str) -> int:
        """Return a counter of /metrics."""
        found = re.search(rf"^kebyt5_xm_{name} (\d+)$", self.ask("/metrics")[2], re.MULTILINE)
        assert found
        return int(found[1])

    def wait_until(self, what: str, is_so: Callable[[], object]) -> None:
        """Return when `is_so`; kill the server and fail when it writes on meanwhile, or after a minute."""
        begin, written = time.monotonic(), self.count("answer_bytes_total")
        while not is_so():
            more = self.count("answer_bytes_total") - written
            if more > MOST_AFTER_LEAVING or time.monotonic() - begin > 60:
                self.process.kill()
                pytest.fail(f"{more} bytes more are written, and not yet: {what}")

    def wait_for_requests(self, number: int) -> None:
        """Return when so many requests are in the server."""
        self.wait_until(f"{number} requests", lambda: self.count("requests_in_server") == number)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: Any) -> None:
        """Kill the server if a test has failed before its end, and close its pipes."""
        with self.process, self._files:
            self.process.kill()

    def stop(self) -> str:
        """End the server by SIGTERM; return what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        errors = self.wait()
        assert self.process.returncode == 0, errors[-2000:]
        return errors

    def wait(self) -> str:
        """Return what it wrote to stderr when it has ended."""
        self.process.wait(120)
        self._errors.seek(0)
        return self._errors.read()
