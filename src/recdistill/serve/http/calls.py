"""One request and its answer, as the routes see them: the body within its limit, decoded as strictly as its schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from recdistill.serve.http.messages import ENCODER
from recdistill.serve.http.refusal import Refusal, beyond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

__all__ = ["Call", "Endpoint", "Gone", "Reply", "header", "send_reply"]

T = TypeVar("T")
_JSON = b"application/json"


class Gone(Exception):
    """The client closed the connection before its request was complete."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back."""

    body: bytes
    status: int = 200
    content_type: bytes = _JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @classmethod
    def of(cls, message: msgspec.Struct, status: int = 200) -> Reply:
        """A message as JSON."""
        return cls(ENCODER.encode(message), status)

    @classmethod
    def refusing(cls, refusal: Refusal) -> Reply:
        """A refusal as JSON."""
        headers = [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        return cls(ENCODER.encode(refusal.failure), refusal.status, _JSON, headers)


class Call:
    """A request.

    Args:
        scope: of ASGI.
        receive: of ASGI.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope, self._receive = scope, receive
        self.trusted: bool = scope["recdistill.trusted"]
        """It gave the server's token, or the server has none."""

    async def message(self, decoder: msgspec.json.Decoder[T], most: int, *, limit: str = "body") -> T:
        """The body, decoded.

        Raises:
            Refusal: 413 too large, 415 no JSON by its type, 400 no JSON, 422 not of the schema.
        """
        kind = header(self.scope, b"content-type")
        if kind.split(b";")[0].strip().lower() != _JSON:
            raise Refusal(415, "not-json", "Send the body as application/json.")
        body = await self._body(most, limit)
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            found = _again(decoder, body)
            if found is None:
                raise Refusal(422, "invalid", f"{error}.") from None
            return found
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, "not-json", f"The body is not JSON: {error}.") from None

    def query(self, kind: type[T], *, lists: frozenset[str] = frozenset()) -> T:
        """The query string, decoded; names in `lists` may be repeated, others not.

        Raises:
            Refusal: 422 not of the schema.
        """
        try:
            pairs = parse_qsl(
                self.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1000
            )
        except ValueError:
            raise Refusal(422, "invalid", "The query string is not readable.") from None
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in lists:
                found.setdefault(name, []).append(value)
            elif name in found:
                raise Refusal(422, "invalid", f"The parameter {name[:40]!r} is given twice.")
            else:
                found[name] = value
        try:
            return msgspec.convert(found, kind, strict=False)
        except msgspec.ValidationError as error:
            raise Refusal(422, "invalid", f"{error}.") from None

    async def _body(self, most: int, limit: str) -> bytes:
        told = header(self.scope, b"content-length")
        if told.isdigit() and int(told) > most:
            raise beyond(413, limit, "bytes of a body", int(told), most)
        parts, size, more = list[bytes](), 0, True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Gone
            part = event.get("body", b"")
            size += len(part)
            if size > most:
                raise beyond(413, limit, "bytes of a body", None, most)
            parts.append(part)
            more = event.get("more_body", False)
        self.scope["recdistill.read"] = True
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Endpoint:
    """A route's work as an ASGI app.

    Args:
        work: a call -> a reply; may raise `Refusal`.
    """

    def __init__(self, work: Callable[[Call], Awaitable[Reply]]) -> None:
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The work, and what it gives."""
        reply = await self._work(Call(scope, receive))
        await send_reply(reply, send, head=scope["method"] == "HEAD")


def header(scope: Scope, name: bytes) -> bytes:
    """The first header of that name, in lower case; empty where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def send_reply(reply: Reply, send: Send, *, head: bool = False) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else reply.body})


def _again(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """What was refused, read with 12.0 as 12: JSON does not tell them apart. None where that is not what was wrong."""
    try:
        return decoder.decode(ENCODER.encode(_whole(msgspec.json.decode(body))))
    except (msgspec.MsgspecError, RecursionError):
        return None


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value
