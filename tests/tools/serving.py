"""A server in this process, and files for its requests."""

import base64
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import soundfile
from tiny_model import picture, recording

from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.transcription.cutting import Cutting
from kebyt5_xm.serving.app import make_app
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics
from kebyt5_xm.serving.page_content import PageContent
from kebyt5_xm.serving.server import configure, open_socket
from kebyt5_xm.serving.service import Service
from kebyt5_xm.serving.worker import Worker


@contextmanager
def client(
    model: CrossModalT5,
    token: str | None = None,
    prompt: str = "{audio}",
    content: PageContent | None = None,
    window_seconds: float = 30.0,
    **limits: Any,
) -> Iterator[Any]:
    """Yield a client of a server named `tiny`, with given limits."""
    from fastapi.testclient import TestClient

    app = make(model, token, prompt, content, window_seconds, **limits)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as opened:
        yield opened


def make(
    model: CrossModalT5,
    token: str | None = None,
    prompt: str = "{audio}",
    content: PageContent | None = None,
    window_seconds: float = 30.0,
    **limits: Any,
) -> Any:
    """Return the app of a server named `tiny`, with given limits."""
    metrics, allowed = Metrics(), ServingLimits(**limits)
    worker = Worker(model, allowed, metrics)
    service = Service("tiny", worker, allowed, prompt, Cutting(window_seconds))
    return make_app(service, metrics, token, content)


@contextmanager
def listening(model: CrossModalT5, token: str | None = None, **limits: Any) -> Iterator[tuple[str, int]]:
    """Yield the address of a server in a thread, with given limits; at the end it finishes what runs."""
    import uvicorn

    with open_socket("127.0.0.1", 0) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # soon full if a client does not read
        server = uvicorn.Server(configure(make(model, token, **limits), ServingLimits(**limits)))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            yield opened.getsockname()
        finally:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def png(seed: int = 1, **how: Any) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG", **how)
    return file.getvalue()


def wav(seed: int = 7) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, *recording(seed), format="WAV", subtype="FLOAT")
    return file.getvalue()


def hour_of_silence() -> bytes:
    """Return an hour of sound in some kilobytes: nothing but its header tells."""
    file = io.BytesIO()
    soundfile.write(file, [0.0] * 8000, 8000, format="FLAC", subtype="PCM_16")
    raw = bytearray(file.getvalue())
    numbers = int.from_bytes(raw[18:26], "big") & ~((1 << 36) - 1) | 3600 * 8000
    raw[18:26] = numbers.to_bytes(8, "big")
    return bytes(raw)


def bomb() -> bytes:
    """Return a PNG of 60,000 x 60,000 pixels in some hundred bytes."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def in_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def data_url(raw: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{in_base64(raw)}"


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write an image and a recording."""
    (folder / "a.png").write_bytes(png())
    (folder / "b.wav").write_bytes(wav())
    return folder / "a.png", folder / "b.wav"


IMAGE = {"type": "image", "data": data_url(png())}
AUDIO = {"type": "audio", "data": in_base64(wav())}
TEXT = {"type": "text", "text": " ko:"}
"""Segments of /v1/answer."""
