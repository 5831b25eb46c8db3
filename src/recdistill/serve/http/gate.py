"""What every request passes before a route sees it: who may, under which name, how many, for how long; then logs."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from time import perf_counter
from typing import TYPE_CHECKING

from recdistill.serve.http.calls import Gone, Reply, header, send_reply
from recdistill.serve.http.refusal import Refusal, beyond

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from recdistill.serve.http.limits import Limits
    from recdistill.serve.http.logs import Log
    from recdistill.serve.http.metrics import Metrics

__all__ = ["Gate"]

_OPEN = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz", "/favicon.ico"})
"""What answers without a token: pages without data, and whether the process is well."""
_MANAGES = frozenset({"/v1/rollback", "/v1/availability"})
"""What changes answers for everybody: never without a token."""
_UNCOUNTED = frozenset({"/healthz", "/readyz", "/metrics"})
"""What must answer while the server is busy."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
]


class Gate:
    """An ASGI app around another.

    Args:
        app: the routes.
        limits: of concurrency and time.
        token: what `Authorization: Bearer` has to say; None: everybody may, but not change what is served.
        hosts: names that the header `Host` may give, without port; None: any. It keeps a page that a browser shows
            from reaching a server on its machine under a name of its own (DNS rebinding).
        metrics: counts.
        log: is told of refusals that are ours, and of every request where `every` is set.
        routes: the paths there are: what requests are counted by.
        every: log each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        token: str | None,
        hosts: Collection[str] | None,
        metrics: Metrics,
        log: Log,
        routes: Collection[str],
        every: bool = False,
    ) -> None:
        self._routes = frozenset(routes)
        self._app, self._limits, self._metrics, self._log, self._every = app, limits, metrics, log, every
        self._token = None if token is None else _hashed(token.encode())
        self._hosts = None if hosts is None else frozenset(host.lower().encode() for host in hosts)
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = perf_counter()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_SAFE]
            await send(message)

        self._busy += 1
        try:
            await self._admitted(scope, receive, sending)
        except Refusal as refusal:
            await self._refuse(refusal, scope, sending, answered=status > 0)
        except Gone:
            status = 499
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            number = secrets.token_hex(8)
            self._log.failed("request-failed", error, request=number)
            failure = Refusal(500, "internal", f"The server failed; its log names this request {number}.")
            await self._refuse(failure, scope, sending, answered=status > 0)
        finally:
            self._busy -= 1
            self._count(scope, status, perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        self._check_host(scope)
        self._check_token(scope, path)
        if path in _UNCOUNTED:
            await self._app(scope, receive, send)
            return
        if self._busy > self._limits.concurrency:
            raise beyond(429, "concurrency", "requests at a time", None, self._limits.concurrency)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._app(scope, receive, send)
        except TimeoutError:
            most = self._limits.seconds
            if scope["method"] == "POST" and "recdistill.read" not in scope:
                what = f"The body did not come within {most:g} seconds (limit 'seconds')."
                raise Refusal(408, "too-slow", what, limit="seconds", allowed=most) from None
            what = f"No answer within {most:g} seconds (limit 'seconds')."
            raise Refusal(503, "overloaded", what, limit="seconds", allowed=most) from None

    def _check_host(self, scope: Scope) -> None:
        if self._hosts is None:
            return
        host = header(scope, b"host").lower()
        name = host[: host.rfind(b"]") + 1] if host.startswith(b"[") else host.split(b":")[0]
        if name not in self._hosts:
            what = "This server does not answer under that name; start it with --allow-host to let it."
            raise Refusal(421, "wrong-host", what)

    def _check_token(self, scope: Scope, path: str) -> None:
        scope["recdistill.trusted"] = trusted = self._trusted(header(scope, b"authorization"))
        if path in _OPEN:
            return
        if self._token is None and path in _MANAGES:
            what = "This changes what everybody is served, and needs a token; start the server with one."
            raise Refusal(403, "no-token", what)
        if not trusted:
            what = "Send the server's token: Authorization: Bearer ..."
            raise Refusal(401, "unauthorised", what, headers={"www-authenticate": "Bearer"})

    def _trusted(self, authorization: bytes) -> bool:
        if self._token is None:
            return True
        scheme, _, given = authorization.partition(b" ")
        return hmac.compare_digest(_hashed(given.strip()), self._token) and scheme.lower() == b"bearer"

    async def _refuse(self, refusal: Refusal, scope: Scope, send: Send, *, answered: bool) -> None:
        if answered:  # too late for another answer
            return
        reply = Reply.refusing(refusal)
        if scope["method"] == "POST" and "recdistill.read" not in scope:
            reply.headers.append((b"connection", b"close"))  # the rest of the body is not read
        await send_reply(reply, send, head=scope["method"] == "HEAD")

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        name = scope["path"] if scope["path"] in self._routes else "none"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(name, method, status, seconds)
        if self._every:
            self._log.info("request", route=name, method=method, status=status, ms=round(seconds * 1e3, 2))


def _hashed(token: bytes) -> bytes:
    """Of one length, so that comparing tells nothing of it."""
    return hashlib.sha256(token).digest()
