"""Events into a stream's ledger: posts that come together are one transaction, and each is answered when it is on disk.

Letters: n events.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET

from recdistill.errors import RecdistillError
from recdistill.ids import text_keys
from recdistill.ledger import keys
from recdistill.ledger.events import Events as Batch
from recdistill.serve.http.refusal import Refusal, beyond

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from recdistill.ledger import Ledger
    from recdistill.serve.http.logs import Log
    from recdistill.serve.http.messages import Event
    from recdistill.serve.http.metrics import Metrics

__all__ = ["Writer", "batch_of"]

_COMMIT = 50_000
"""Events of one transaction, at most; a post is never split."""


class Writer:
    """Appends to one ledger from a thread of its own; belongs to one event loop.

    Args:
        ledger: opens it; called in the thread, which alone uses what it gives.
        waiting: the most events that wait.
        metrics: counts them.
        log: is told when they cannot be written.
    """

    def __init__(self, ledger: Callable[[], Ledger], *, waiting: int, metrics: Metrics, log: Log) -> None:
        self._open, self._most, self._metrics, self._log = ledger, waiting, metrics, log
        self._thread = ThreadPoolExecutor(1, "events")
        self._ledger: Ledger | None = None
        self._queue: list[tuple[Sequence[Event], asyncio.Future[None]]] = []
        self._running: asyncio.Task[None] | None = None

    async def post(self, events: Sequence[Event]) -> None:
        """Return when all of them are in the ledger and on disk.

        Raises:
            Refusal: too many are waiting, or they could not be written; posting them again is safe.
        """
        if sum(len(post) for post, _ in self._queue) + len(events) > self._most:
            raise beyond(429, "waiting_events", "events may wait to be written", None, self._most)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((events, future))
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(future)  # whoever stops waiting does not stop the writing

    async def close(self) -> None:
        """Write what is waiting, then let go of the ledger."""
        while self._running is not None:
            await asyncio.wait([self._running])
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            posts, n = list[tuple["Sequence[Event]", "asyncio.Future[None]"]](), 0
            while self._queue and (not posts or n + len(self._queue[0][0]) <= _COMMIT):
                posts.append(self._queue.pop(0))
                n += len(posts[-1][0])
            try:
                new = await loop.run_in_executor(self._thread, self._write, [one for post, _ in posts for one in post])
            except (RecdistillError, OSError, sqlite3.Error) as error:
                self._log.failed("events-not-written", error, events=n)
                what = "The events could not be written; post them again."
                self._settle(posts, Refusal(503, "not-written", what, headers={"retry-after": "1"}))
            except Exception as error:  # noqa: BLE001 - whoever posted must not wait for ever
                self._log.failed("events-not-written", error, events=n)
                self._settle(posts, Refusal(500, "internal", "The events could not be written."))
            else:
                self._metrics.events.inc(new)
                self._settle(posts, None)
        self._running = None

    @staticmethod
    def _settle(posts: list[tuple[Sequence[Event], asyncio.Future[None]]], refusal: Refusal | None) -> None:
        for _, future in posts:
            if refusal is None:
                future.set_result(None)
            else:
                future.set_exception(refusal)
                future.exception()  # seen, even where nobody waits any more

    # in the thread

    def _write(self, events: list[Event]) -> int:
        if self._ledger is None:
            self._ledger = self._open()
        return self._ledger.ingest(batch_of(events, now=time.time())).new

    def _close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def batch_of(events: Sequence[Event], *, now: float) -> Batch:
    """(n,) events of requests as the ledger takes them; an event without a time happened `now`, Unix seconds."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user = [users.setdefault(str(event.user), len(users)) for event in events]
    item = [items.setdefault(str(event.item), len(items)) for event in events]
    at = [int(now) if event.timestamp is UNSET else event.timestamp for event in events]
    return Batch(
        users=list(users),
        items=list(items),
        user=np.array(user, np.int32),
        item=np.array(item, np.int32),
        timestamp=np.array(at, np.int64),
        weight=np.array([event.weight for event in events], np.float32),
        key=keys.combined(text_keys([str(event.id) for event in events])),
    )
