"""The ASGI app: routes in a FastAPI app, the gate around them, watching and draining in its lifespan."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from recdistill import __version__
from recdistill.serve.http.calls import Endpoint, Reply
from recdistill.serve.http.events import Writer
from recdistill.serve.http.gate import Gate
from recdistill.serve.http.limits import Limits
from recdistill.serve.http.logs import Log
from recdistill.serve.http.metrics import Metrics
from recdistill.serve.http.recent import Recent
from recdistill.serve.http.refusal import Refusal
from recdistill.serve.http.routes import Routes
from recdistill.serve.http.shelf import Shelf
from recdistill.serve.http.spec import document
from recdistill.serve.http.watching import Watcher

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection

    from starlette.requests import Request

    from recdistill.ledger import Ledger
    from recdistill.serve.http.sources import Source
    from recdistill.serve.http.version import Version
    from recdistill.serve.service import Search

__all__ = ["Options", "create_app"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a server is made of, beside its source."""

    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    """What clients have to say; None: everybody may ask, nobody may change what is served."""
    hosts: Collection[str] | None = None
    """Names that clients may use for the server; None: any."""
    teacher: Version | None = None
    """Beside whom students are shown."""
    ledger: Callable[[], Ledger] | None = None
    """Opens a stream's ledger, for events."""
    move: Callable[[str | None], str] | None = None
    """Moves a stream's pointer back."""
    wait: float = 0.001
    """Seconds that the first query of a batch waits for others."""
    batch: int = 64
    """The most queries of a batch."""
    threads: int = 1
    """Of a batch."""
    search: Search = "auto"
    """How lists are found, as in `Service.from_bundle`."""
    every: float = 0.5
    """Seconds between two looks for a new version."""
    log_requests: bool = False
    log: Log = field(default_factory=Log)


def create_app(source: Source, options: Options, *, first: Version | None = None) -> FastAPI:
    """The app of one source; routes of your own may be added to it.

    Args:
        source: where versions appear.
        options: all else.
        first: what is served from the start; None: the first version that appears.
    """
    metrics = Metrics()
    shelf = Shelf(wait=options.wait, size=options.batch, watch=metrics.batch)
    watcher = Watcher(
        source, shelf, metrics, options.log, every=options.every, threads=options.threads, search=options.search
    )
    writer = None
    if options.ledger is not None:
        shelf.recent = Recent(options.ledger)
        writer = Writer(options.ledger, waiting=options.limits.waiting_events, metrics=metrics, log=options.log)
    spec = document(options.limits, version=__version__, token=options.token is not None)
    routes = Routes(
        shelf=shelf,
        limits=options.limits,
        metrics=metrics,
        writer=writer,
        move=options.move,
        look=watcher.look,
        spec=msgspec.json.encode(spec),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        del app
        if options.teacher is not None:
            routes.teacher = shelf.loaded(options.teacher)
        if first is not None:
            watcher.begin(first)
        watching = asyncio.create_task(watcher.run())
        watching.add_done_callback(_stopped(options.log))
        yield
        routes.draining = True
        watching.cancel()
        watcher.close()
        if writer is not None:
            await writer.close()
        await shelf.close()
        options.log.info("stopped")

    table = _table(routes)
    app = FastAPI(
        title="recdistill serve", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan, routes=[*table]
    )
    app.openapi = lambda: spec
    app.add_exception_handler(HTTPException, _no_route)
    app.add_middleware(
        Gate,
        limits=options.limits,
        token=options.token,
        hosts=options.hosts,
        metrics=metrics,
        log=options.log,
        routes=[route.path for route in table],
        every=options.log_requests,
    )
    app.state.routes = routes
    return app


def _table(routes: Routes) -> list[Route]:
    posts = {
        "/v1/recommend": routes.recommend,
        "/v1/recommend/batch": routes.recommend_batch,
        "/v1/compare": routes.compare,
        "/v1/events": routes.events,
        "/v1/availability": routes.availability,
        "/v1/rollback": routes.rollback,
    }
    gets = {
        "/v1/similar": routes.similar,
        "/v1/items": routes.items,
        "/v1/about": routes.about,
        "/healthz": routes.healthz,
        "/readyz": routes.readyz,
        "/metrics": routes.prometheus,
        "/openapi.json": routes.openapi,
        "/docs": routes.docs,
        "/": routes.page,
    }
    table = [Route(path, Endpoint(work), methods=["POST"]) for path, work in posts.items()]
    return table + [Route(path, Endpoint(work), methods=["GET"]) for path, work in gets.items()]


def _stopped(log: Log) -> Callable[[asyncio.Task[None]], None]:
    def told(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.failed("watcher-stopped", error)

    return told


async def _no_route(request: Request, error: Exception) -> Response:
    del request
    headers = dict(getattr(error, "headers", None) or {})
    if getattr(error, "status_code", 404) == 405:
        reply = Reply.refusing(Refusal(405, "wrong-method", "This route does not take that method."))
    else:
        reply = Reply.refusing(Refusal(404, "not-found", "There is no such route; /docs lists them."))
    return Response(reply.body, reply.status, headers, "application/json")
