"""A client's connection: HTTP/1.1 of uvicorn and h11, with the limits that uvicorn leaves to a proxy.

A client that sends no whole head, or reads nothing of its response, keeps a connection but no place for a request; so
there are more connections than places, and each ends in time.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from kebyt5_xm.serving.api_errors import ApiError

MAX_CONNECTIONS = 512
"""Open connections; more are refused. Common systems let a process open 1,024 files. Our own choice."""
HEAD_SECONDS = 20.0
"""From a connection, or the first byte of a later request, to the end of a request's head. Our own choice."""
UNREAD_SECONDS = 30.0
"""How long a client may read nothing while a response waits for it. Our own choice."""


class Connection(H11Protocol):
    """One connection. uvicorn makes it, and closes it when nothing was asked for `timeout_keep_alive` seconds."""

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(_refusal())
            transport.close()
        else:
            self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Read what the client sends; bytes after the end of a response belong to the next head."""
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the timers."""
        self._head_timer = _cancel(self._head_timer)
        self._unread_timer = _cancel(self._unread_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: it has read."""
        self._unread_timer = _cancel(self._unread_timer)
        super().resume_writing()

    def _watch_head(self) -> None:
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering:
            self._head_timer = _cancel(self._head_timer)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _refusal() -> bytes:
    message = f"found {MAX_CONNECTIONS} connections, the most; close some, or try again in the seconds of Retry-After"
    body = json.dumps(ApiError(503, message, "too_many_connections").content()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
        f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
