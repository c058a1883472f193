"""Connections as strangers and broken clients use them: raw bytes on a socket."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import serving
from tiny_model import tiny_model

pytest.importorskip("fastapi")

from kebyt5_xm.serving import admission, connection, service

ASKED = json.dumps({"segments": "x", "max_new_tokens": 3}).encode()
LIMITS = {"max_requests": 2, "max_bytes": 100_000, "max_new_tokens": 20_000, "max_request_seconds": 120.0}


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    with serving.listening(tiny_model(), **LIMITS) as found:
        yield found


def connect(address: tuple[str, int], *parts: bytes) -> socket.socket:
    """Return a socket that has sent `parts`, each in a packet of its own."""
    opened = socket.create_connection(address, timeout=60)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for part in parts:
        opened.sendall(part)
    return opened


def read_all(opened: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    received = b""
    with closing(opened):
        try:
            while part := opened.recv(65536):
                received += part
        except ConnectionResetError:
            pass
    return received


def exchange(address: tuple[str, int], *parts: bytes) -> tuple[int, bytes]:
    """Return the status (0 for none) and the body of the response to `parts`."""
    head, _, body = read_all(connect(address, *parts)).partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def post(*fields: bytes, path: bytes = b"/v1/answer") -> bytes:
    """Return the head of a request whose connection is closed after the response."""
    known = b"Host: localhost", b"Content-Type: application/json", b"Connection: close", *fields
    return b"\r\n".join((b"POST " + path + b" HTTP/1.1", *known, b"", b""))


def is_alive(address: tuple[str, int]) -> bool:
    return exchange(address, post(b"Content-Length: %d" % len(ASKED)), ASKED)[0] == 200


def wait_for_metric(address: tuple[str, int], line: bytes) -> None:
    """Return when /metrics has `line`; fail after a minute."""
    question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    end = time.monotonic() + 60
    while line not in (page := exchange(address, question)[1]):
        assert time.monotonic() < end, page


def test_a_body_in_chunks_has_no_length_and_a_limit(address):
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (ASKED[:7], ASKED[7:])]
    status, _ = exchange(address, post(b"Transfer-Encoding: chunked"), *chunks, b"0\r\n\r\n")
    assert status == 200
    large = [b"%x\r\n%s\r\n" % (60_000, b" " * 60_000)] * 2
    status, body = exchange(address, post(b"Transfer-Encoding: chunked"), *large, b"0\r\n\r\n")
    assert status == 413
    assert b"more than 100000 bytes" in body


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 50_000 + b"\r\n",
        "GET /한 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        post(b"Content-Length: -1"),
        post(b"Content-Length: 5", b"Content-Length: 6"),
        b"\r\n" * 3,
    ],
)
def test_heads_that_are_no_http_are_refused(address, head, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)  # for those that wait for more
    assert exchange(address, head)[0] in (0, 400, 404)
    assert is_alive(address)


def test_a_path_in_other_letters_is_the_same_request_with_the_same_limits(address):
    for path in (b"/v1/%61nswer", b"/v1/answer%0A"):
        status, body = exchange(address, post(b"Content-Length: 150000", path=path), b" " * 150_000)
        assert status == 413, body
    status, body = exchange(address, post(b"Content-Length: %d" % len(ASKED), path=b"/v1/answer%00"), ASKED)
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"


def test_head_is_get_without_the_body(address):
    for path in (b"/health", b"/"):
        fields = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        head, _, body = read_all(connect(address, b"HEAD " + path + fields)).partition(b"\r\n\r\n")
        whole, _, page = read_all(connect(address, b"GET " + path + fields)).partition(b"\r\n\r\n")
        assert body == b""
        assert b"content-length: %d" % len(page) in head
        assert head.split()[1] == whole.split()[1] == b"200"


def test_options_are_refused_by_name(address):
    status, body = exchange(
        address, b"OPTIONS /v1/answer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert status == 405
    assert json.loads(body)["error"]["code"] == "method_not_allowed"


def test_a_head_that_never_ends_loses_its_connection(address, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    for part in (b"", b"GET /health HTTP/1.1\r\nHost:"):
        assert read_all(connect(address, part)) == b""
    opened = connect(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"}"):
        received += opened.recv(1024)
    opened.sendall(b"G")
    assert read_all(opened) == b"", "a second head that never ends"


def test_a_body_that_never_ends_is_late_and_frees_its_place():
    with serving.listening(tiny_model(), max_requests=1, max_request_seconds=0.2) as address:
        status, body = exchange(address, post(b"Content-Length: 10"), b"{")
        assert status == 408
        assert b"0.2 seconds" in body
        wait_for_metric(address, b"requests_in_server 0")


def test_a_client_that_reads_nothing_frees_its_place(monkeypatch):
    monkeypatch.setattr(connection, "UNREAD_SECONDS", 0.1)
    made = connection.Connection.connection_made

    def make(opened: connection.Connection, transport: Any) -> None:
        transport.set_write_buffer_limits(1000)
        made(opened, transport)

    monkeypatch.setattr(connection.Connection, "connection_made", make)
    body = json.dumps(
        {"segments": "x", "max_new_tokens": 20_000, "stop_loops": False, "stream": True}
    ).encode()
    with serving.listening(tiny_model(), **LIMITS) as address:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            deaf.settimeout(60)
            deaf.connect(address)
            deaf.sendall(post(b"Content-Length: %d" % len(body)) + body)
            wait_for_metric(address, b"hang_ups_total 1")
        assert is_alive(address)


def test_more_connections_than_the_most_are_refused_and_the_others_live_on(address, monkeypatch):
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    question = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    kept = [connect(address, question) for _ in range(3)]
    for one in kept:
        assert one.recv(15) == b"HTTP/1.1 200 OK"
    status, body = exchange(address)
    assert status == 503
    assert json.loads(body)["error"]["code"] == "too_many_connections"
    for one in kept:
        one.close()
    wait_for_metric(address, b"requests_in_server 0")


def test_the_time_limit_holds_for_media_that_take_long_to_decode(monkeypatch):
    monkeypatch.setattr(admission, "EXTRA_SECONDS", 0.0)
    gate, make = threading.Event(), service.make_example

    def wait(*given: Any) -> Any:
        assert gate.wait(60)
        return make(*given)

    monkeypatch.setattr(service, "make_example", wait)
    with serving.listening(tiny_model(), max_request_seconds=0.2, max_requests=1) as address:
        length = b"Content-Length: %d" % len(ASKED)
        for _ in range(service.PREPARING_THREADS + 1):  # the last waits for a thread
            assert exchange(address, post(length), ASKED)[0] == 408
        gate.set()
        wait_for_metric(address, b"requests_in_server 0")
