"""What happens to a request before its route: who may ask, how many at once, how large, and how long.

Every POST takes one of `max_requests` places before its body is read, whatever its path, and gives it back when it
is answered, refused, late, or when its client has gone.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Awaitable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kebyt5_xm.serving.api_errors import ApiError, timeout_error
from kebyt5_xm.serving.jobs import Job
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics

ANSWERING = ("/v1/answer", "/v1/chat/completions", "/v1/audio/transcriptions")
PROTECTED = ("/v1/", "/metrics")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_RETRY_SECONDS = 60
WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")
"""Methods whose bodies no route reads."""
READ_TO_DROP = 4
"""A body of up to so many times `max_bytes` is read to its end before it is refused. Our own choice."""
EXTRA_SECONDS = 5.0
"""What a request may take beyond its time limit until it is cut, and a stopping server too. Our own choice."""


class Place:
    """A place in the server, held while a request is answered."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.jobs: list[Job] = []

    def release(self) -> None:
        """Let the worker forget the request."""
        for job in self.jobs:
            job.cancel()


class Admission:
    """ASGI middleware.

    Args:
        app: what it protects.
        limits: of requests.
        metrics: are told of every request.
        token: what clients must send as a bearer token; without one, only pages of this machine may ask.
        places: the requests in the server; it adds and removes them.
    """

    def __init__(
        self, app: ASGIApp, limits: ServingLimits, metrics: Metrics, token: str | None, places: set[Place]
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token, self._places = token, places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        place, status = Place(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            async with asyncio.timeout(self._limits.max_request_seconds + EXTRA_SECONDS):
                self._check_client(scope)
                if scope["method"] in WITHOUT_BODY:
                    await self._show(scope, receive, note)
                else:
                    if len(self._places) >= self._limits.max_requests:
                        raise self._busy()
                    self._places.add(place)
                    body = await self._read(scope, receive, place)
                    scope.setdefault("state", {})["place"] = place
                    await self._answer(scope, body, receive, note)
        except ApiError as error:
            await error.response()(scope, receive, note)
        except TimeoutError:  # the client does not read, or its media could not be decoded in time
            if not status:
                await timeout_error(self._limits.max_request_seconds).response()(scope, receive, note)
        except ConnectionResetError:
            self._metrics.count_hang_up()
        except Exception:
            status = 500
            raise
        finally:
            place.release()
            self._places.discard(place)
            if scope["path"] in ANSWERING and status:
                self._metrics.observe_request(scope["path"], status, time.monotonic() - place.started)

    def _check_client(self, scope: Scope) -> None:
        """Raise `ApiError` for a wrong token; without a token, for a web page that is not of this machine.

        A page in a browser on this machine can send requests to it, or resolve its own name to 127.0.0.1: the
        headers Origin and Host tell.
        """
        headers = dict(scope["headers"])
        if self._token is None:
            origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
            for url in filter(None, (origin, host and f"//{host}")):
                if _hostname(url) not in LOOPBACK:
                    raise ApiError(
                        403,
                        "found a request by another name than localhost, expected one from this machine; start the "
                        "server with a token to be reached from elsewhere",
                        "forbidden",
                    )
            return
        if not scope["path"].startswith(PROTECTED):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        known = hmac.compare_digest(given.strip(), self._token.encode())
        if scheme.lower() != b"bearer" or not known:
            raise ApiError(
                401,
                "found no valid token, expected the header 'Authorization: Bearer TOKEN' with the server's token",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _busy(self) -> ApiError:
        most, batch = self._limits.max_requests, self._limits.max_batch_size
        wait = math.ceil(self._metrics.mean_seconds * most / batch)
        return ApiError(
            429,
            f"found {most} requests in the server, the most at once; try again in the seconds of Retry-After",
            "queue_full",
            headers={"Retry-After": str(min(max(wait, 1), MAX_RETRY_SECONDS))},
        )

    async def _read(self, scope: Scope, receive: Receive, place: Place) -> bytes:
        """Return the body. Raises `ApiError` above the limits, and `ConnectionResetError` if the client has gone.

        A body that is somewhat too large is read to its end, and dropped: a client that still sends would lose the
        response when the connection is closed.
        """
        limit, seconds = self._limits.max_bytes, self._limits.max_request_seconds
        too_large = ApiError(
            413,
            f"found a body of more than {limit} bytes, the most; send smaller or fewer files",
            "request_too_large",
            headers={"Connection": "close"},
        )
        length = dict(scope["headers"]).get(b"content-length", b"0")[:20]
        if length.isdigit() and int(length) > READ_TO_DROP * limit:
            raise too_large
        body, size = bytearray(), 0
        while True:
            message = await _within(receive(), seconds - (time.monotonic() - place.started), seconds)
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                body.clear()
            else:
                body += part
            is_whole = not message.get("more_body", False)
            if size > limit and (is_whole or size > READ_TO_DROP * limit):
                raise too_large
            if is_whole:
                return bytes(body)

    async def _show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on a request without a body; HEAD is GET without the body of the response."""

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        if scope["method"] == "HEAD":
            await self._app({**scope, "method": "GET"}, receive, send_head)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Run the app on a body that is read; cancel it when the client goes."""
        ended, gone, unread = False, asyncio.Event(), [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def note_end(message: Message) -> None:
            nonlocal ended
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if not ended:
                gone.set()
                task.cancel()

        task = asyncio.ensure_future(self._app(scope, replay, note_end))
        watcher = asyncio.ensure_future(watch())
        try:
            await task
        except asyncio.CancelledError:
            if not gone.is_set():
                task.cancel()
                raise
            raise ConnectionResetError from None
        finally:
            watcher.cancel()


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


async def _within(waiting: Awaitable[Message], left: float, limit: float) -> Message:
    try:
        return await asyncio.wait_for(waiting, max(0.0, left))
    except TimeoutError:
        raise timeout_error(limit) from None
