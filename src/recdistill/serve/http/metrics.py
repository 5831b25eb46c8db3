"""What Prometheus is told: counts and times, no ids."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        for collector in (ProcessCollector, GCCollector, PlatformCollector):
            collector(registry=own)
        self._requests = Counter(
            "recdistill_requests", "Requests by route, method and status.", ["route", "method", "status"], registry=own
        )
        self._seconds = Histogram(
            "recdistill_request_seconds", "From headers to answer.", ["route"], buckets=_SECONDS, registry=own
        )
        self.busy = Gauge("recdistill_requests_in_progress", "Requests being answered.", registry=own)
        self._sizes = Histogram("recdistill_batch_queries", "Queries of a batch.", buckets=_SIZES, registry=own)
        self._waited = Histogram("recdistill_batch_wait_seconds", "Of its first query.", buckets=_SECONDS, registry=own)
        self._computed = Histogram("recdistill_batch_seconds", "Of computing it.", buckets=_SECONDS, registry=own)
        self._why = Counter("recdistill_lists", "Lists by what made them.", ["why"], registry=own)
        self._version = Gauge("recdistill_version", "1 for the version that is served.", ["version"], registry=own)
        self.swaps = Counter("recdistill_swaps", "Versions that began to be served.", registry=own)
        self.refused = Counter("recdistill_versions_refused", "Versions that did not pass.", registry=own)
        self.events = Counter("recdistill_events", "Events written to the ledger.", registry=own)
        self._done: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._lists = {why: self._why.labels(why) for why in ("known-user", "folded-in", "history", "popular")}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """One request is through; routes and methods are of a known set, so that a client cannot make labels."""
        found = self._done.get((route, method, status))
        if found is None:
            pair = self._requests.labels(route, method, status), self._seconds.labels(route)
            found = self._done[route, method, status] = pair
        found[0].inc()
        found[1].observe(seconds)

    def batch(self, size: int, waited: float, computed: float) -> None:
        """One batch is computed."""
        self._sizes.observe(size)
        self._waited.observe(waited)
        self._computed.observe(computed)

    def told(self, why: str) -> None:
        """One list was given."""
        self._lists[why].inc()

    def served(self, version: str) -> None:
        """A version begins to be served."""
        self._version.clear()
        self._version.labels(version).set(1)
        self.swaps.inc()

    def page(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
