"""The version that is served, the one before it, and how one takes the other's place."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from recdistill.errors import BundleError, UsageError, problem
from recdistill.serve.http import answering
from recdistill.serve.http.batching import Batcher
from recdistill.serve.http.inspecting import inspected, probe
from recdistill.serve.http.messages import Query, Refused
from recdistill.serve.http.version import Version, opened

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from recdistill.serve.http.answering import Lists
    from recdistill.serve.http.recent import Recent
    from recdistill.serve.http.sources import Seen
    from recdistill.serve.service import Search

__all__ = ["Loaded", "Shelf", "load"]


@dataclass(frozen=True, eq=False, slots=True)
class Loaded:
    """A version and its queue: what a request takes once, and keeps until it is answered."""

    version: Version
    batcher: Batcher[Query, Lists]


class Shelf:
    """Current and previous version; belongs to one event loop, whose thread alone changes it.

    Args:
        wait: seconds that the first query of a batch waits for others.
        size: the most queries of a batch.
        watch: told the size, the longest wait and the time of each batch.
    """

    def __init__(
        self, *, wait: float = 0.001, size: int = 64, watch: Callable[[int, float, float], None] | None = None
    ) -> None:
        self.current: Loaded | None = None
        self.previous: Loaded | None = None
        self.refused: Refused | None = None
        self.worker = ThreadPoolExecutor(1, "answers")
        self.recent: Recent | None = None
        """What people of a stream did since its version."""
        self._wait, self._size, self._watch = wait, size, watch

    def loaded(self, version: Version) -> Loaded:
        """A version with a queue of its own."""
        work = partial(self.answer, version)
        return Loaded(version, Batcher(work, self.worker, size=self._size, wait=self._wait, watch=self._watch))

    def answer(self, version: Version, queries: Sequence[Query]) -> list[Lists]:
        """(Q,) queries -> (Q,) lists of a version."""
        return answering.answer(version, queries, None if self.recent is None else self.recent.items)

    def swap(self, version: Version) -> None:
        """Serve a version from the next request on; requests under way keep theirs."""
        now = None if self.current is None else self.current.version
        # of one name it is the same version, out of which somebody was taken who asked to be forgotten
        if now is None or (now.digest != version.digest and now.name != version.name):
            self.previous = self.current
        self.current, self.refused = self.loaded(version), None

    def show(self, before: Loaded, version: Version) -> bool:
        """Put a version with another availability list in the place of `before`; False where that has been swapped."""
        if self.current is not before:
            return False
        self.current = self.loaded(version)
        return True

    def back(self) -> Version:
        """Serve the previous version again; what was current becomes the previous one.

        Raises:
            UsageError: there is none.
        """
        current = self._needed()
        if self.previous is None:
            remedy = "A version is kept from the first swap on"
            raise UsageError(problem("There is no version before the serving one", current.version.name, remedy=remedy))
        self.current, self.previous = self.previous, current
        return self.current.version

    async def close(self) -> None:
        """Answer what is waiting, then end the worker."""
        for loaded in (self.current, self.previous):
            if loaded is not None:
                await loaded.batcher.drained()
        await asyncio.to_thread(self.worker.shutdown)

    def _needed(self) -> Loaded:
        if self.current is None:
            raise UsageError(problem("No version is served yet", remedy="Wait until /readyz says ready"))
        return self.current


def load(
    seen: Seen,
    *,
    threads: int = 1,
    search: Search = "auto",
    check: bool = True,
    begun: Callable[[subprocess.Popen[bytes]], object] | None = None,
) -> Version:
    """Check, open and warm what stands at a source; blocks for as long as that takes.

    Args:
        seen: what was found there.
        threads: of a batch.
        search: how lists are found, as in `Service.from_bundle`.
        check: read every byte in a process of its own first; off where that has just been done.
        begun: told of that process.

    Raises:
        BundleError: it is not to be served; the message says why.
    """
    verdict = inspected(seen.path, search, begun) if check else None
    if verdict is not None and verdict.reason is not None:
        raise BundleError(verdict.reason)
    version = opened(seen.path, seen.name, threads=threads, search=search)
    if verdict is not None:
        if version.digest != verdict.digest:
            raise BundleError(
                problem("The bundle was replaced while it was checked", remedy="It will be looked at again")
            )
        if probe(version.service, verdict.users) != verdict.lists:
            raise BundleError(problem("The open bundle does not answer as it did when it was checked"))
    _warm(version)
    return version


def _warm(version: Version) -> None:
    """Touch what the first requests would wait for."""
    service = version.service
    some = service.users.external(list(range(min(4, len(service.users))))).tolist()
    items = service.items.external(list(range(min(2, len(service.items))))).tolist()
    queries = [Query(user=user) for user in some]
    if version.reads == "folded-in" or (version.reads == "history" and _encodes(version)):
        queries.append(Query(history=items))
    answering.answer(version, queries)


def _encodes(version: Version) -> bool:
    """Whether onnxruntime is there; without it known users are served still."""
    try:
        version.service.recommend_after([[]], 1)
    except UsageError:
        return False
    return True
