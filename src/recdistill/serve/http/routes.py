"""The routes: what is asked, by whom it is answered. Every one takes the current version once, and no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import UNSET, Meta, Struct

from recdistill.errors import RecdistillError
from recdistill.serve.http import messages
from recdistill.serve.http.calls import Call, Reply
from recdistill.serve.http.checks import checked
from recdistill.serve.http.finding import beginning_with
from recdistill.serve.http.limits import ID_LENGTH, Limits
from recdistill.serve.http.messages import Answer, Query, Timing
from recdistill.serve.http.metrics import CONTENT_TYPE, Metrics
from recdistill.serve.http.refusal import Refusal, beyond
from recdistill.serve.http.similar import similar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from recdistill.serve.http.answering import Lists
    from recdistill.serve.http.batching import Done
    from recdistill.serve.http.events import Writer
    from recdistill.serve.http.shelf import Loaded, Shelf
    from recdistill.serve.http.version import Version

__all__ = ["FindAsked", "Routes", "SimilarAsked"]

_QUERY = msgspec.json.Decoder(Query)
_BATCH = msgspec.json.Decoder(messages.BatchQuery)
_EVENTS = msgspec.json.Decoder(messages.Events)
_AVAILABLE = msgspec.json.Decoder(messages.Available)
_ROLLBACK = msgspec.json.Decoder(messages.Rollback)
_HTML = b"text/html; charset=utf-8"
_POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

Text = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)]


class SimilarAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of `GET /v1/similar`."""

    item: Text
    k: Annotated[int, Meta(ge=1)] = 10


class FindAsked(Struct, frozen=True, forbid_unknown_fields=True):
    """The query string of `GET /v1/items`."""

    starts: Annotated[str, Meta(max_length=ID_LENGTH)] = ""
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


@dataclass(kw_only=True, eq=False)
class Routes:
    """What the routes work with."""

    shelf: Shelf
    limits: Limits
    metrics: Metrics
    teacher: Loaded | None = None
    """Beside whom students are shown."""
    writer: Writer | None = None
    """Of a stream's events; None: there is no stream."""
    move: Callable[[str | None], str] | None = None
    """Moves a stream's pointer back, by name or by one; None: there is no stream."""
    look: Callable[[], Awaitable[None]] | None = None
    """Looks for a new version at once."""
    spec: bytes = b"{}"
    draining: bool = False

    # lists

    async def recommend(self, call: Call) -> Reply:
        """`POST /v1/recommend`."""
        query = await call.message(_QUERY, self.limits.body)
        loaded = self._current()
        checked(query, self.limits)
        (done,) = await loaded.batcher.ask([query])
        return Reply.of(self._told(loaded.version, done))

    async def recommend_batch(self, call: Call) -> Reply:
        """`POST /v1/recommend/batch`."""
        asked = await call.message(_BATCH, self.limits.body)
        loaded = self._current()
        if len(asked.requests) > self.limits.batch:
            raise beyond(422, "batch", "requests in one call", len(asked.requests), self.limits.batch)
        for query in asked.requests:
            checked(query, self.limits)
        done = await loaded.batcher.ask(asked.requests)
        told = [self._told(loaded.version, one) for one in done]
        return Reply.of(messages.Answers(told, loaded.version.name))

    async def compare(self, call: Call) -> Reply:
        """`POST /v1/compare`."""
        query = await call.message(_QUERY, self.limits.body)
        loaded = self._current()
        checked(query, self.limits)
        student = await self._alone(loaded, query)
        if self.teacher is None:
            return Reply.of(messages.Compared(student, None, None))
        teacher = await self._alone(self.teacher, query)
        longest = max(len(student.items), len(teacher.items))
        both = len(set(map(str, student.items)) & set(map(str, teacher.items)))
        return Reply.of(messages.Compared(student, teacher, both / longest if longest else None))

    async def similar(self, call: Call) -> Reply:
        """`GET /v1/similar`."""
        asked = call.query(SimilarAsked)
        loaded = self._current()
        if asked.k > self.limits.k:
            raise beyond(422, "k", "items of one list", asked.k, self.limits.k)
        begun = perf_counter()

        def work() -> tuple[list[str | int], list[float], float]:
            started = perf_counter()
            return *similar(loaded.version, asked.item, asked.k), started

        items, scores, started = await asyncio.get_running_loop().run_in_executor(self.shelf.worker, work)
        timing = Timing(_ms(started - begun), _ms(perf_counter() - started), 1)
        return Reply.of(messages.Similar(items, scores, loaded.version.name, timing))

    async def items(self, call: Call) -> Reply:
        """`GET /v1/items`."""
        asked = call.query(FindAsked)
        version = self._current().version
        return Reply.of(messages.Found(beginning_with(version.service.items, asked.starts, asked.limit), version.name))

    # events and versions

    async def events(self, call: Call) -> Reply:
        """`POST /v1/events`."""
        asked = await call.message(_EVENTS, self.limits.body)
        if self.writer is None:
            raise Refusal(409, "no-stream", "This server serves a bundle; events need a stream.")
        if len(asked.events) > self.limits.events:
            raise beyond(422, "events", "events in one post", len(asked.events), self.limits.events)
        await self.writer.post(asked.events)
        return Reply.of(messages.Received(len(asked.events)))

    async def availability(self, call: Call) -> Reply:
        """`POST /v1/availability`."""
        asked = await call.message(_AVAILABLE, self.limits.availability_body, limit="availability_body")
        loaded = self._current()
        try:
            version = await asyncio.to_thread(loaded.version.showing, asked.items)
        except RecdistillError as error:
            raise Refusal(409, "none-known", str(error)) from None
        if not self.shelf.show(loaded, version):
            raise Refusal(409, "swapped", "Another version was swapped in meanwhile; send the list again.")
        shown = None if version.available is None else len(version.available)
        return Reply.of(messages.Listed(version.name, shown, version.unknown))

    async def rollback(self, call: Call) -> Reply:
        """`POST /v1/rollback`."""
        asked = await call.message(_ROLLBACK, self.limits.body)
        to = None if asked.to is UNSET else asked.to
        try:
            if self.move is not None:
                name = await asyncio.to_thread(self.move, to)
                if self.look is not None:
                    await self.look()
                return Reply.of(messages.VersionTold(name))
            previous = self.shelf.previous
            if to is not None and (previous is None or previous.version.name != to):
                raise Refusal(409, "no-version", "Only the version before the serving one is kept; leave 'to' out.")
            version = self.shelf.back()
        except RecdistillError as error:
            raise Refusal(409, "no-version", str(error)) from None
        self.metrics.served(version.name)
        return Reply.of(messages.VersionTold(version.name))

    # how the server is

    async def healthz(self, call: Call) -> Reply:
        """`GET /healthz`."""
        del call
        return Reply.of(messages.Live())

    async def readyz(self, call: Call) -> Reply:
        """`GET /readyz`; why something was refused is told to who may know."""
        now, before, recent = self.shelf.current, self.shelf.previous, self.shelf.recent
        ready = now is not None and not self.draining
        told = messages.Ready(
            ready=ready,
            version=None if now is None else now.version.name,
            previous=None if before is None else before.version.name,
            refused=self.shelf.refused if call.trusted else None,
            gated=recent.gated if call.trusted and recent is not None else None,
            status="ready" if ready else "draining" if self.draining else "starting",
        )
        return Reply.of(told, 200 if ready else 503)

    async def prometheus(self, call: Call) -> Reply:
        """`GET /metrics`."""
        del call
        return Reply(self.metrics.page(), content_type=CONTENT_TYPE.encode())

    async def about(self, call: Call) -> Reply:
        """`GET /v1/about`."""
        del call
        version = self._current().version
        service = version.service
        some = service.users.external(list(range(min(5, len(service.users))))).tolist()
        told = messages.About(
            version=version.name,
            model=version.model,
            users=len(service.users),
            items=len(service.items),
            parameters=version.parameters,
            bytes=version.bytes,
            search=service.search,
            reads=version.reads,
            teacher=None if self.teacher is None else _made(self.teacher.version),
            examples=some,
            events=self.writer is not None,
        )
        return Reply.of(told)

    async def page(self, call: Call) -> Reply:
        """`GET /`."""
        del call
        return _page("page.html")

    async def docs(self, call: Call) -> Reply:
        """`GET /docs`."""
        del call
        return _page("docs.html")

    async def openapi(self, call: Call) -> Reply:
        """`GET /openapi.json`."""
        del call
        return Reply(self.spec)

    def _current(self) -> Loaded:
        if self.shelf.current is None:
            what = "No version is served yet; /readyz says when."
            raise Refusal(503, "not-ready", what, headers={"retry-after": "1"})
        return self.shelf.current

    def _told(self, version: Version, done: Done[Lists]) -> Answer:
        found = done.answer
        self.metrics.told(found.why)
        timing = Timing(_ms(done.waited), _ms(done.computed), done.size)
        return Answer(found.items, found.scores, found.why, version.name, timing, found.notes)

    async def _alone(self, loaded: Loaded, query: Query) -> Answer:
        """A list and its own time, beside no other; computed twice, so that neither side is the one that was cold."""
        loop, begun = asyncio.get_running_loop(), perf_counter()

        def work() -> tuple[Lists, float, float]:
            self.shelf.answer(loaded.version, [query])
            started = perf_counter()
            return self.shelf.answer(loaded.version, [query])[0], started, perf_counter()

        found, started, ended = await loop.run_in_executor(self.shelf.worker, work)
        timing = Timing(_ms(started - begun), _ms(ended - started), 1)
        return Answer(found.items, found.scores, found.why, loaded.version.name, timing, found.notes)


def _made(version: Version) -> messages.Made:
    return messages.Made(version.name, version.model, version.parameters, version.bytes)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _page(name: str) -> Reply:
    text = (files("recdistill.serve.http") / "pages" / name).read_bytes()
    return Reply(text, content_type=_HTML, headers=[(b"content-security-policy", _POLICY)])
