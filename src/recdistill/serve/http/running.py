"""Runs the app under uvicorn: sockets, the guard of slow and large heads, signals, the drain."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from recdistill.errors import UsageError, problem
from recdistill.serve.http.app import Options, create_app

if TYPE_CHECKING:
    from collections.abc import Generator

    from fastapi import FastAPI

    from recdistill.serve.http.limits import Limits
    from recdistill.serve.http.sources import Source
    from recdistill.serve.http.version import Version

__all__ = ["LOOPBACK", "is_loopback", "run", "server_of"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""What a client on this machine may call it."""
_SWITCH = 0.001
"""Seconds that the worker may keep the interpreter from the event loop."""
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b"
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def run(source: Source, options: Options, *, first: Version | None, host: str, port: int, open_to_all: bool) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered, then it returns.

    Args:
        source: where versions appear.
        options: all else.
        first: what is served from the start.
        host: the address to listen at.
        port: 0 takes a free one; the log says which.
        open_to_all: listen beyond this machine though there is no token.

    Raises:
        UsageError: the address is reached from elsewhere and there is no token.
    """
    if options.token is None and not is_loopback(host) and not open_to_all:
        remedy = (
            "Give one by --token-file, or say --no-token where something before the server lets in only whom it should"
        )
        raise UsageError(problem("A server that other machines can reach needs a token", host, remedy=remedy))
    gc.collect()
    gc.freeze()  # what is loaded now stays: collections need not walk it, which would hold up requests
    sys.setswitchinterval(_SWITCH)
    with _bound(host, port) as place:
        server_of(create_app(source, options, first=first), options).run([place])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except OSError as error:
        what = f"The server cannot listen at {host}:{port}: {(error.strerror or str(error)).lower()}"
        raise UsageError(problem(what, remedy="Give another --port or --host")) from None


def server_of(app: FastAPI, options: Options) -> uvicorn.Server:
    """An app behind the guard of this file; `run` of it serves a bound socket, setting `should_exit` drains it."""
    limits = options.limits
    config = uvicorn.Config(
        app,
        loop="auto",  # uvloop where it is installed
        http=_guarded(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(limits.idle)),
        timeout_graceful_shutdown=max(1, round(limits.drain)),
    )
    return _Server(config, app, options)


class _Server(uvicorn.Server):
    """Says where it listens, and that it drains as soon as it is told to stop."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, options: Options) -> None:
        super().__init__(config)
        self._app, self._options = app, options

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            self._options.log.info("listening", host=host, port=port, token=self._options.token is not None)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.routes.draining = True
        self._options.log.info("draining")
        await super().shutdown(sockets)

    @override
    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn does, but a server that drained as it was told to ends well: the signal is not raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def _guarded(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol with bounds on what comes before a body: its size, the time it takes, how many connections."""

    class Guarded(HttpToolsProtocol):
        _head = 0
        _late: asyncio.TimerHandle | None = None

        @override
        def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._expect()

        @override
        def data_received(self, data: bytes) -> None:
            if self._late is not None:  # of a head that is not complete yet
                self._head += len(data)
            if self._head > limits.head + limits.body and self._late is not None:
                self._refuse()
                return
            super().data_received(data)

        @override
        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self._late is None:
                self._expect()

        @override
        def on_url(self, url: bytes) -> None:
            super().on_url(url)
            if len(self.url) > limits.head:
                self._refuse()

        @override
        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value)
            if sum(len(key) + len(text) + 4 for key, text in self.headers) + len(self.url) > limits.head:
                self._refuse()

        @override
        def on_headers_complete(self) -> None:
            self._settle()
            if not self.transport.is_closing():
                super().on_headers_complete()

        @override
        def connection_lost(self, exc: Exception | None) -> None:
            self._settle()
            super().connection_lost(exc)

        def _expect(self) -> None:
            self._head, self._late = 0, self.loop.call_later(limits.idle, self._abort)

        def _settle(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _abort(self) -> None:
            self.transport.abort()

        def _refuse(self) -> None:
            if self.transport.is_closing():
                return
            message = f"At most {limits.head:,} bytes of a request line and headers (limit 'head')."
            body = b'{"error":{"code":"too-large","message":"%b","limit":"head","allowed":%d}}'
            told = body % (message.encode(), limits.head)
            self.transport.write(_TOO_LARGE % (len(told), told))
            self.transport.close()

    return Guarded
