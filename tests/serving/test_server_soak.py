"""`make soak` asks a server for an hour, in good ways and bad ones: it lives on, and its memory does not grow.

SOAK_MINUTES=8 make soak takes another time. Some clients ask at once, each in an order of its own: more than the
server takes.
"""

import collections
import http.client
import json
import os
import random
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import serving
from server_process import Server
from tiny_model import tiny_model

pytest.importorskip("fastapi")

SOAK = bool(os.environ.get("KEBYT5_XM_SOAK"))
MINUTES = float(os.environ.get("SOAK_MINUTES") or 60)
NUM_CLIENTS = 8
MAX_REQUESTS = 7
"""Places in the server, fewer than clients: some are refused."""
GROWTH = 1.03
"""The most that the median of memory in the last quarter may be of that in the second. Our own choice."""
TOKEN = "0123456789abcdef0123"


def segments(*parts: Any, **arguments: Any) -> dict[str, Any]:
    return {"segments": list(parts), "max_new_tokens": 12, **arguments}


def text(words: str = " ko:") -> dict[str, str]:
    return {"type": "text", "text": words}


def file(kind: str, raw: bytes) -> dict[str, str]:
    return {"type": kind, "data": serving.in_base64(raw)}


def form(raw: bytes, boundary: str = "soak") -> bytes:
    head = 'Content-Disposition: form-data; name="{}"\r\n\r\n'
    named = f"--{boundary}\r\n{head.format('model')}tiny\r\n--{boundary}\r\n"
    named += 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return named.encode() + raw + f"\r\n--{boundary}--\r\n".encode()


PNG, WAV = serving.png(), serving.wav()
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "안녕"}], "max_tokens": 12}
FORM = {"Content-Type": "multipart/form-data; boundary=soak"}
LONG = segments(text("안녕"), stream=True, stop_loops=False) | {"max_new_tokens": 1000}
ASKED: list[tuple[str, str, Any, dict[str, str], int]] = [
    ("a text", "/v1/answer", segments(text()), {}, 200),
    ("an image", "/v1/answer", segments(file("image", PNG), text()), {}, 200),
    ("a recording", "/v1/answer", segments(file("audio", WAV), text()), {}, 200),
    ("details", "/v1/answer", segments(file("image", PNG), details=True), {}, 200),
    ("beams", "/v1/answer", segments(text(), num_beams=3, n=2), {}, 200),
    ("samples", "/v1/answer", segments(text(), temperature=1.0, n=3, choose="chrf"), {}, 200),
    ("a seed", "/v1/answer", segments(text(), temperature=1.0, seed=3), {}, 200),
    ("labels", "/v1/answer", segments(text(), labels=["개", "새"]), {}, 200),
    ("a stream", "/v1/answer", segments(text(), stream=True), {}, 200),
    ("a chat", "/v1/chat/completions", CHAT, {}, 200),
    ("a chat's stream", "/v1/chat/completions", CHAT | {"stream": True}, {}, 200),
    ("a transcription", "/v1/audio/transcriptions", form(WAV), FORM, 200),
    ("metrics", "/metrics", None, {}, 200),
    ("the schema", "/openapi.json", None, {}, 200),
    ("no image", "/v1/answer", segments(file("image", b"no image")), {}, 400),
    ("half an image", "/v1/answer", segments(file("image", PNG[:200])), {}, 400),
    ("a bomb", "/v1/answer", segments(file("image", serving.bomb())), {}, 413),
    ("an hour", "/v1/answer", segments(file("audio", serving.hour_of_silence())), {}, 413),
    ("no recording", "/v1/audio/transcriptions", form(PNG), FORM, 400),
    ("empty", "/v1/answer", segments(), {}, 400),
    ("no JSON", "/v1/answer", b"{", {}, 400),
    ("deep JSON", "/v1/answer", b"[" * 100_000, {}, 400),
    ("many parts", "/v1/answer", segments(*[text("")] * 5000), {}, 400),
    ("a modality it lacks", "/v1/answer", segments(file("array", b"x")), {}, 400),
    ("too long", "/v1/answer", segments(text("x" * 5000)), {}, 413),
    ("too large", "/v1/answer", b" " * 1_100_000, {}, 413),
    ("too many bytes asked", "/v1/answer", segments(text()) | {"max_new_tokens": 10**6}, {}, 400),
    ("another model", "/v1/chat/completions", CHAT | {"model": "other"}, {}, 404),
    ("no such path", "/v1/nothing", b"x", {}, 404),
    ("a wrong token", "/v1/answer", segments(text()), {"Authorization": "Bearer wrong"}, 401),
]


def leave_after_sending(server: Server) -> None:
    server.send(LONG).close()


def leave_while_sending(server: Server) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/v1/answer")
    for name, value in (server.headers | {"Content-Length": "1000000"}).items():
        connection.putheader(name, value)
    connection.endheaders(b"{")
    connection.close()


def leave_a_stream(server: Server) -> None:
    connection = server.send(LONG)
    response = connection.getresponse()
    response.readline()
    response.close()
    connection.close()


def leave_within_the_head(server: Server) -> None:
    connection = server.connect()
    connection.connect()
    connection.sock.sendall(b"POST /v1/answer HTTP/1.1\r\nHost:")
    connection.close()


LEAVING = (leave_after_sending, leave_while_sending, leave_a_stream, leave_within_the_head)


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 600)
@pytest.mark.skipif(not SOAK, reason="an hour; `make soak` runs it")
def test_a_server_that_is_asked_everything_lives_on_and_does_not_grow(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "tiny")
    options = ["--max-requests", str(MAX_REQUESTS), "--max-bytes", "1000000", "--max-new-tokens", "1000"]
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    unexpected: list[Any] = []
    with Server(str(tmp_path / "tiny"), *options, KEBYT5_XM_TOKEN=TOKEN) as server:
        server.headers = {"Authorization": f"Bearer {TOKEN}"}
        end = time.monotonic() + 60 * MINUTES

        def ask(seed: int) -> None:
            draw = random.Random(seed)
            try:
                while time.monotonic() < end and not unexpected:
                    if draw.random() < 0.1:
                        leave = draw.choice(LEAVING)
                        leave(server)
                        counts[leave.__name__, 0] += 1
                        continue
                    name, path, body, fields, expected = draw.choice(ASKED)
                    status, _, found = server.ask(path, body, **fields)
                    counts[name, status] += 1
                    if status not in (expected, 429):
                        unexpected.append((name, status, found))
            except (OSError, http.client.HTTPException) as error:
                unexpected.append((seed, repr(error)))

        threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        process, sizes = psutil.Process(server.process.pid), []
        while time.monotonic() < end and not unexpected:
            assert server.ask("/health")[2] == {"status": "ok"}
            sizes.append(process.memory_info().rss / 1e6)
        for thread in threads:
            thread.join()
        assert not unexpected
        server.wait_until("no requests", lambda: "requests_in_server 0" in server.ask("/metrics")[2])
        assert server.ask("/v1/answer", segments(text()))[0] == 200
        files, num_threads = process.num_fds(), process.num_threads()
        assert "Traceback" not in server.stop()
    quarter = len(sizes) // 4
    second, last = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
    print(json.dumps({f"{name} {status}": count for (name, status), count in sorted(counts.items())}))
    print(f"{sum(counts.values())} requests; {second:.1f} MB, at the end {last:.1f} MB")
    print(f"{files} files and {num_threads} threads at the end")
    assert last <= GROWTH * second
    assert files < 64, "connections of clients that left are closed"
    missing = {name for name, *_ in ASKED} - {name for name, status in counts if status != 429}
    assert not missing
    assert sum(count for (_, status), count in counts.items() if status == 429)
