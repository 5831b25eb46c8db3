"""Requests that come at about one time, computed as one batch in one worker thread.

The first query of a batch waits for at most `wait` seconds for others; while a batch is computed the next one gathers.
So one user alone waits a millisecond, and under load batches grow by themselves.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Executor

__all__ = ["Batcher", "Done"]

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Done(Generic[A]):
    """An answer, and what it cost."""

    answer: A
    waited: float
    """Seconds in the queue."""
    computed: float
    """Seconds of the whole batch."""
    size: int


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Q, A]):
    queries: Sequence[Q]
    came: float
    future: asyncio.Future[list[Done[A]]]


class Batcher(Generic[Q, A]):
    """One queue; belongs to one event loop.

    Args:
        work: (n,) queries -> (n,) answers, called in the worker.
        worker: where it runs; one thread keeps batches in order and the event loop free.
        size: the most queries of a batch; a caller's own queries are never split.
        wait: seconds that the first of a batch waits for others.
        watch: told the size, the longest wait and the time of each batch.
    """

    def __init__(
        self,
        work: Callable[[list[Q]], list[A]],
        worker: Executor,
        *,
        size: int = 64,
        wait: float = 0.001,
        watch: Callable[[int, float, float], None] | None = None,
    ) -> None:
        self._work, self._worker, self._size, self._wait, self._watch = work, worker, size, wait, watch
        self._queue: list[_Waiting[Q, A]] = []
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None

    async def ask(self, queries: Sequence[Q]) -> list[Done[A]]:
        """Answers in the order of the queries; whoever stops waiting is left out of the batch if it has not begun."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting[Q, A](queries, perf_counter(), loop.create_future())
        self._queue.append(waiting)
        self._count += len(queries)
        if self._running is None:
            if self._count >= self._size:
                self._begin()
            elif self._timer is None:
                self._timer = loop.call_later(self._wait, self._begin)
        return await waiting.future

    async def drained(self) -> None:
        """Wait until nothing is asked any more."""
        while self._running is not None or self._queue:
            if self._running is None:
                self._begin()
            if self._running is not None:
                await asyncio.wait([self._running])

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running is None and (batch := self._next()):
            self._running = asyncio.get_running_loop().create_task(self._run(batch))

    def _next(self) -> list[_Waiting[Q, A]]:
        batch: list[_Waiting[Q, A]] = []
        n = at = 0
        for at, waiting in enumerate(self._queue):  # noqa: B007 - where the batch ends
            if batch and n + len(waiting.queries) > self._size:
                break
            if not waiting.future.done():  # whoever gave up is not answered
                batch.append(waiting)
                n += len(waiting.queries)
        else:
            at = len(self._queue)
        del self._queue[:at]
        self._count = sum(len(waiting.queries) for waiting in self._queue)
        return batch

    async def _run(self, batch: list[_Waiting[Q, A]]) -> None:
        loop = asyncio.get_running_loop()
        while batch:
            queries = [query for waiting in batch for query in waiting.queries]
            begun = perf_counter()
            try:
                answers = await loop.run_in_executor(self._worker, self._work, queries)
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                for waiting in batch:
                    if not waiting.future.done():
                        waiting.future.set_exception(error)
            else:
                self._tell(batch, answers, begun, perf_counter() - begun)
            batch = self._next()
        self._running = None

    def _tell(self, batch: list[_Waiting[Q, A]], answers: list[A], begun: float, computed: float) -> None:
        at = 0
        for waiting in batch:
            mine = answers[at : at + len(waiting.queries)]
            at += len(mine)
            if not waiting.future.done():
                waited = begun - waiting.came
                waiting.future.set_result([Done(one, waited, computed, len(answers)) for one in mine])
        if self._watch is not None:
            self._watch(len(answers), begun - batch[0].came, computed)
