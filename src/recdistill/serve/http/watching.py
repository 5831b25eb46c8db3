"""Looks for a new version every moment, loads it beside the old one, and swaps when it has passed."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from recdistill import bundle
from recdistill.errors import RecdistillError
from recdistill.serve.http.messages import Refused
from recdistill.serve.http.shelf import load

if TYPE_CHECKING:
    import subprocess

    from recdistill.serve.http.logs import Log
    from recdistill.serve.http.metrics import Metrics
    from recdistill.serve.http.shelf import Shelf
    from recdistill.serve.http.sources import Seen, Source
    from recdistill.serve.http.version import Version
    from recdistill.serve.service import Search

__all__ = ["Watcher"]

_AGAIN = 30.0
"""Seconds until a version is loaded again that this machine could not load: for want of memory, of processes ..."""


class Watcher:
    """Keeps a shelf at what its source says.

    Args:
        source: where versions appear.
        shelf: what is served.
        metrics: counts swaps and refusals.
        log: is told of both.
        every: seconds between two looks.
        threads: of a batch.
        search: how lists are found.
    """

    def __init__(
        self,
        source: Source,
        shelf: Shelf,
        metrics: Metrics,
        log: Log,
        *,
        every: float = 0.5,
        threads: int = 1,
        search: Search = "auto",
    ) -> None:
        self._source, self._shelf, self._metrics, self._log = source, shelf, metrics, log
        self._every, self._threads = every, threads
        self._search: Search = search
        self._last: Seen | None = None
        self._loader = ThreadPoolExecutor(1, "loader")
        self._lock = asyncio.Lock()
        self._again: float | None = None
        self._blind: type[Exception] | None = None
        self._deaf: type[Exception] | None = None
        self._check: subprocess.Popen[bytes] | None = None
        self._closed = False

    def begin(self, version: Version) -> None:
        """Serve what has been loaded before the server began."""
        self._last = self._source.look()
        if self._last is not None and self._last.path != version.path:
            self._last = None  # moved on meanwhile: the first look loads it
        self._shelf.swap(version)
        self._told(version, perf_counter())

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.look()
            await self._remember()
            await asyncio.sleep(self._every)

    async def look(self) -> None:
        """Look once; what has been seen is not loaded again, whether it was served or refused."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            try:
                seen = await loop.run_in_executor(self._loader, self._source.look)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may see again
                if self._blind is not type(error):
                    self._log.failed("source-not-seen", error)
                self._blind = type(error)
                return
            self._blind = None
            due = self._again is not None and monotonic() >= self._again
            if seen is None or (seen == self._last and not due):
                return
            self._again = None
            self._last = seen
            begun = perf_counter()
            kept = self._shelf.previous
            if (
                kept is not None
                and kept.version.name == seen.name
                and await loop.run_in_executor(self._loader, _is_still, kept.version, seen)
            ):
                self._shelf.back()  # a rollback by the pointer: it is there already
                self._told(kept.version, begun)
                return
            try:
                version = await loop.run_in_executor(self._loader, self._load, seen)
            except RecdistillError as error:
                self._refuse(seen, str(error))
                return
            except Exception as error:  # noqa: BLE001 - a version that cannot be loaded must not end the watch
                if self._closed:
                    return
                self._again = monotonic() + _AGAIN
                self._log.failed("version-not-loaded", error)
                self._refuse(seen, f"It could not be loaded ({type(error).__name__}); it is tried again.")
                return
            self._shelf.swap(version)
            self._told(version, begun)

    async def _remember(self) -> None:
        """Read what people did since, and what the gates said."""
        recent, current = self._shelf.recent, self._shelf.current
        if recent is None:
            return
        work = partial(recent.look, None if current is None else current.version)
        try:
            await asyncio.get_running_loop().run_in_executor(self._loader, work)
        except Exception as error:  # noqa: BLE001 - as above
            if self._deaf is not type(error):
                self._log.failed("ledger-not-read", error)
            self._deaf = type(error)
        else:
            self._deaf = None

    def close(self) -> None:
        """Let go of the loader's thread; a check that is under way is ended."""
        self._closed = True
        if self._check is not None:
            self._check.kill()
        if self._shelf.recent is not None:
            self._loader.submit(self._shelf.recent.close)
        self._loader.shutdown(wait=False)

    def _load(self, seen: Seen) -> Version:
        return load(seen, threads=self._threads, search=self._search, begun=self._begun)

    def _begun(self, check: subprocess.Popen[bytes]) -> None:
        self._check = check
        if self._closed:  # meanwhile
            check.kill()

    def _refuse(self, seen: Seen, reason: str) -> None:
        name = seen.path.name if seen.name is None else seen.name
        reason = reason.replace(f"{seen.path}", name).replace(f"{seen.path.parent}/", "")
        self._shelf.refused = Refused(name, reason)
        self._metrics.refused.inc()
        self._log.warning("version-refused", version=name, reason=reason)

    def _told(self, version: Version, begun: float) -> None:
        self._metrics.served(version.name)
        seconds, search = round(perf_counter() - begun, 3), version.service.search
        self._log.info("version-served", version=version.name, search=search, seconds=seconds)


def _is_still(version: Version, seen: Seen) -> bool:
    """Whether a loaded version is what stands at its place: people may have been taken out of that since."""
    try:
        return version.path == seen.path and version.digest == bundle.open(seen.path).manifest.digest
    except RecdistillError:
        return False
