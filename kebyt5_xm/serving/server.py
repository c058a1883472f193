"""Runs an app until it is told to stop; then what runs is finished."""

import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from kebyt5_xm.errors import UserError
from kebyt5_xm.serving.admission import EXTRA_SECONDS, LOOPBACK
from kebyt5_xm.serving.connection import Connection
from kebyt5_xm.serving.limits import ServingLimits

TOKEN_VARIABLE = "KEBYT5_XM_TOKEN"
MIN_TOKEN_LENGTH = 16
"""Characters of a token; shorter ones can be guessed. Our own choice."""
MAX_PORT = 65535
BACKLOG = 256
"""Connections that wait to be accepted; the kernel may keep fewer. Our own choice."""


def read_token(path: str | None, host: str) -> str | None:
    """Return the token in a file, else that in the environment.

    Raises `UserError` for a short or unprintable one, and for none with a host that other machines reach.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if path is not None:
        try:
            token = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the token file '{path}' ({error}); give a text file") from error
    if token is None:
        if not is_loopback(host):
            raise UserError(
                f"found --host {host} without a token, expected one where other machines can ask; put 16 characters "
                f"or more into a file (openssl rand -hex 32) and give --token-file, or set {TOKEN_VARIABLE}"
            )
        return None
    if len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"found a token of {len(token)} characters, expected {MIN_TOKEN_LENGTH} or more of ASCII without spaces; "
            "make one: openssl rand -hex 32"
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises `UserError` if it cannot be had."""
    listening = None
    try:
        if not 0 <= port <= MAX_PORT:
            raise OSError(f"ports are 0 to {MAX_PORT}")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise UserError(
            f"cannot listen at {host}, port {port} ({error}); give another --port, or 0 for a free one"
        ) from error
    return listening


def configure(app: FastAPI, limits: ServingLimits) -> uvicorn.Config:
    """Return the settings of uvicorn."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.max_request_seconds + 2 * EXTRA_SECONDS),
        loop="asyncio",
        http=Connection,
        ws="none",
        proxy_headers=False,
    )


def serve(app: FastAPI, listening: socket.socket, limits: ServingLimits) -> None:
    """Answer requests until SIGTERM or SIGINT; then take no new ones, finish the others and return."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    with _ending_quietly():
        uvicorn.Server(configure(app, limits)).run([listening])


@contextlib.contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let signals of the block end it alone: uvicorn raises each again after its own shutdown."""
    former = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
